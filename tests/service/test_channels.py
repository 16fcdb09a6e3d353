"""What all who listen to a job are told, from one look: nothing twice, nothing missing, however far behind one is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import channels, feed
from service.channels import Channel, Channels, Message, News
from service.db import Database
from service.tables import EventRow
from tests.service.world import START, Controller, World, finished, resized

POLL_S = 0.005


def news(*ids: int, last: int | None = None, ended: bool = False) -> News:
    messages = [Message(id=each, text=b"%d " % each) for each in ids]
    return News(revision=1, last=ids[-1] if ids else last or 0, messages=messages, ended=ended)


@given(
    chunks=st.lists(st.integers(0, 4), max_size=8), begin=st.integers(0, 5), after=st.integers(0, 40),
    backlog=st.integers(1, 10),
)  # fmt: skip
def test_what_it_says_is_all_that_came_after_the_cursor(
    chunks: list[int], begin: int, after: int, backlog: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels, "BACKLOG", backlog)
        channel = Channel()
        assert channel.since(after) is None
        channel.tell(news(last=begin))
        last = begin
        for size in chunks:
            ids = range(last + 1, last + 1 + size)
            channel.tell(news(*ids, last=last))
            last += size
        said = channel.since(after)
        reachable = max(begin, last - backlog)
        assert (said is not None) == (after >= reachable)
        if said is not None:
            text, cursor, over = said
            assert text == b"".join(b"%d " % each for each in range(after + 1, last + 1))
            assert (cursor, over) == (max(after, last), False)


def test_who_listens_is_woken_and_told_when_it_is_over() -> None:
    channel = Channel()
    woken = channel.news()
    channel.tell(news(last=3))
    assert woken.is_set()
    assert not channel.news().is_set()
    channel.tell(news(4, ended=True))
    assert channel.since(3) == (b"4 ", 4, True)
    channel.tell(None)
    assert channel.over


@pytest.mark.parametrize("backlog", [1, 2, 1000])
def test_many_who_listen_hear_the_same_from_wherever_they_begin(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch, backlog: int
) -> None:
    monkeypatch.setattr(channels, "BACKLOG", backlog)
    controller = world.run()

    async def listen(hub: Channels, after: int) -> list[str]:
        said = b"".join([part async for part in feed.stream(hub, database, controller.job, after)])
        return [line for line in said.decode().split("\n") if line.startswith("id: ")]

    async def script() -> None:
        hub = Channels(database, POLL_S)
        early = [asyncio.create_task(listen(hub, 0)) for _ in range(20)]
        for number in range(12):
            await asyncio.to_thread(controller.report, resized(64 * (number + 1), (2, 3)))
            await asyncio.sleep(POLL_S)
        late = asyncio.create_task(listen(hub, 0))
        await asyncio.to_thread(controller.report, finished("succeeded"))
        heard = await asyncio.gather(*early, late)
        assert heard == [heard[0]] * 21
        assert len(heard[0]) == len(set(heard[0])) == len(world.get(f"/v1/jobs/{controller.job}/events")["items"])

    played(script)


def say_what_cannot_be_read(database: Database, job: str) -> None:
    with database.writing() as session:
        row = {"incarnation": 9, "generation": 9, "sequence": 9, "type": "of_a_later_version", "at": START}
        session.add(EventRow(job_id=job, payload={"type": "of_a_later_version"}, **row))


def test_events_that_cannot_be_read_end_the_streams_of_that_job_alone(world: World, database: Database) -> None:
    later, controller = world.run(), world.run()

    async def listen(hub: Channels, job: str) -> str:
        return b"".join([part async for part in feed.stream(hub, database, job, 0)]).decode()

    async def script() -> None:
        hub = Channels(database, POLL_S)
        both = [asyncio.create_task(listen(hub, each.job)) for each in (later, controller)]
        await asyncio.to_thread(controller.report, resized(64, (2, 3)))
        await asyncio.sleep(10 * POLL_S)
        say_what_cannot_be_read(database, later.job)
        await asyncio.to_thread(later.report, resized(64, (2, 3)))
        await both[0]
        await asyncio.to_thread(controller.report, finished("succeeded"))
        assert "finished" in await both[1]

    played(script)


def test_a_stream_that_begins_with_an_event_that_cannot_be_read_ends(world: World, database: Database) -> None:
    later = world.run()
    say_what_cannot_be_read(database, later.job)

    async def script() -> None:
        assert [part async for part in feed.stream(Channels(database, POLL_S), database, later.job, 0)] == []

    played(script)


def test_a_look_that_fails_is_not_the_last(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    controller = world.run()
    monkeypatch.setattr(channels, "OUTAGE_POLL_S", POLL_S)

    look = channels.look

    def broken(*_: object) -> None:
        monkeypatch.setattr(channels, "look", look)
        raise RuntimeError("a fault of ours")

    async def script() -> None:
        nonlocal look
        look = channels.look
        monkeypatch.setattr(channels, "look", broken)
        stream = feed.stream(Channels(database, POLL_S), database, controller.job, 0)
        await anext(stream)
        while channels.look is broken:  # else the end might be read before anybody looked
            await asyncio.sleep(POLL_S)
        await asyncio.to_thread(controller.report, finished("succeeded"))
        assert "finished" in b"".join([part async for part in stream]).decode()

    played(script)
    assert "a fault of ours" in caplog.text


def played(script: Callable[[], Awaitable[None]]) -> None:
    """Returns once no look is under way any more: one that is cancelled goes on in its thread, on the database."""
    busy, look = Lock(), channels.look

    def one_at_a_time(*arguments: Any) -> Any:
        with busy:
            return look(*arguments)

    async def limited() -> None:
        async with asyncio.timeout(60):
            await script()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels, "look", one_at_a_time)
        asyncio.run(limited())
        with busy:
            pass


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_one_look_at_many_jobs_misses_nothing_however_little_it_reads(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(channels, "CHUNK", chunk)
    controllers = [world.run() for _ in range(5)]
    asked = [(each.job, None, None) for each in controllers]
    found = {job: news for job, news in channels.look(database, asked).items() if news}
    heard: dict[str, list[int]] = {each.job: [] for each in controllers}
    for number, each in enumerate(controllers):
        each.report(*(resized(64 * (times + 1), (2, 3)) for times in range(3 * number)))
    while asked := [(job, news.revision, news.last) for job, news in found.items()]:
        told = {job: news for job, news in channels.look(database, asked).items() if news}
        if not told:
            break
        for job, news in told.items():
            heard[job] += [message.id for message in news.messages]
        found |= told
    for number, each in enumerate(controllers):
        assert len(heard[each.job]) == len(set(heard[each.job])) == 3 * number
        assert heard[each.job] == sorted(heard[each.job])


def test_nobody_looks_when_nobody_listens(world: World, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller.launch(database, world.submit())
    looks: list[int] = []
    look = channels.look
    monkeypatch.setattr(channels, "look", lambda base, asked: looks.append(len(asked)) or look(base, asked))

    async def script() -> None:
        hub = Channels(database, POLL_S)
        for _ in range(2):
            with hub.joined(controller.job), hub.joined(controller.job):
                async with asyncio.timeout(10):
                    while not looks:
                        await asyncio.sleep(POLL_S)
            await asyncio.sleep(2 * POLL_S)
            assert set(looks) == {1}  # two listeners, one job
            looks.clear()
            await asyncio.sleep(4 * POLL_S)
            assert looks == []

    played(script)


def test_listeners_of_many_jobs_are_not_all_served_in_one_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "look", lambda _, asked: {job: news(1) for job, *_ in asked})
    turns = 0
    woken_in: list[int] = []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def listen(hub: Channels, job: str) -> None:
        with hub.joined(job) as channel:
            await channel.news().wait()
            woken_in.append(turns)

    async def script() -> None:
        counting = asyncio.create_task(count())
        hub = Channels(database, POLL_S)
        await asyncio.gather(*(listen(hub, f"job-{number}") for number in range(50)))
        counting.cancel()

    asyncio.run(script())
    assert len(set(woken_in)) == 50  # requests that wait are let in between
