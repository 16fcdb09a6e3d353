"""What all who listen to a job are told, from one look: nothing twice, nothing missing, however far behind one is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import channels, feed
from service.channels import Channel, Channels, Message, News
from service.db import Database
from tests.service.world import Controller, World, finished, resized

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

    asyncio.run(script())


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

    asyncio.run(script())
