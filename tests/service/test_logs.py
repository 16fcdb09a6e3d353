"""Log lines of the workers: merged by time, the last ones, one worker's, and those that still come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from threading import Event
from typing import Any

import httpx
import pytest

from api_schemas.errors import Unavailable
from api_schemas.stream import lines
from service import jobs, logs
from service.app import create_app
from service.storage import Folder, Stored
from tests.service.world import World, finished, line, pointers, problem
from tests.serving import served

PATIENCE_S = 60


@pytest.fixture
def job(world: World) -> str:
    """Two workers took turns; the first has two segments."""
    job = world.submit()
    world.store(job, "logs/w0/000001.log", line(1, "one") + line(3, "three"))
    world.store(job, "logs/w0/000002.log", line(5, "five"))
    world.store(job, "logs/w1/000001.log", line(2, "two") + line(4, "four"))
    return job


Reads = list[tuple[str, int, int]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """What is read of the storage from now on: path, start and stop."""
    found: Reads = []

    def noted(folder: Folder, path: str, start: int, stop: int) -> bytes:
        found.append((path, start, stop))
        return read(folder, path, start, stop)

    read = Folder.read
    monkeypatch.setattr(Folder, "read", noted)
    return found


def read(world: World, job: str, **params: Any) -> list[str]:
    response = world.http.get(f"/v1/jobs/{job}/logs", params=params)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    return response.text.split("\n")[:-1]


@contextmanager
def following(wire: httpx.Client, job: str, **params: Any) -> Iterator[Iterator[str]]:
    """The lines, as they come."""
    with wire.stream("GET", f"/v1/jobs/{job}/logs", params={"follow": True} | params) as response:
        assert response.status_code == 200
        yield lines(response.iter_text())


def test_lines_of_all_workers_in_order_of_time(world: World, job: str) -> None:
    assert read(world, job) == [
        "[w0] 2026-01-01T12:00:01Z one",
        "[w1] 2026-01-01T12:00:02Z two",
        "[w0] 2026-01-01T12:00:03Z three",
        "[w1] 2026-01-01T12:00:04Z four",
        "[w0] 2026-01-01T12:00:05Z five",
    ]


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 4, 5, 6, 100_000])
def test_the_tail_is_the_end_of_the_whole(world: World, job: str, tail: int) -> None:
    whole = read(world, job)
    assert read(world, job, tail=tail) == whole[max(0, len(whole) - tail) :]


@pytest.mark.parametrize("rank", ["0", "w0"])
def test_one_workers_lines_are_not_marked(world: World, job: str, rank: str) -> None:
    one, three, five = (line(at, text).decode().rstrip() for at, text in ((1, "one"), (3, "three"), (5, "five")))
    assert read(world, job, rank=rank) == [one, three, five]
    assert read(world, job, rank=rank, tail=2) == [three, five]


def test_worker_1_is_not_worker_10(world: World, job: str) -> None:
    world.store(job, "logs/w10/000001.log", line(9, "ten"))
    assert read(world, job, rank="1") == [line(2, "two").decode().rstrip(), line(4, "four").decode().rstrip()]


def test_a_worker_that_left_nothing_is_not_found(world: World, job: str) -> None:
    assert "'7'" in problem(world.http.get(f"/v1/jobs/{job}/logs?rank=7"), 404, "not_found")["detail"]


def test_a_job_that_has_not_begun_has_no_lines(world: World) -> None:
    assert read(world, world.submit()) == []


def test_half_written_segments_are_not_read(world: World, job: str) -> None:
    before = read(world, job)
    world.store(job, "logs/w0/.writing-3f", line(9, "half"))
    assert read(world, job) == before


def test_an_empty_segment_has_no_line(world: World, job: str) -> None:
    before = read(world, job)
    world.store(job, "logs/w1/000002.log", b"")
    assert read(world, job) == before
    assert read(world, job, tail=1) == before[-1:]


def test_lines_are_as_they_were_written(world: World) -> None:
    job = world.submit()
    world.store(
        job, "logs/w0/1.log", line(1, "nul \0, line \u2028 separator, tab\t") + b"2026 \xff not utf-8\n\n2027 last"
    )
    assert read(world, job, rank="0") == [
        "2026-01-01T12:00:01Z nul \0, line \u2028 separator, tab\t",
        "2026 \ufffd not utf-8",
        "",
        "2027 last",
    ]


def test_logs_outlive_the_run(world: World) -> None:
    controller = world.run()
    world.store(controller.job, "logs/w0/1.log", line(1, "one"))
    controller.report(finished("failed"))
    assert read(world, controller.job, rank="0") == [line(1, "one").decode().rstrip()]


def test_whoever_follows_hears_what_comes_until_the_job_has_ended(world: World, wire: httpx.Client) -> None:
    controller = world.run()
    world.store(controller.job, "logs/w0/000001.log", line(1, "one"))
    with following(wire, controller.job) as said:
        assert next(said).endswith("one")
        world.store(controller.job, "logs/w0/000002.log", line(2, "two"))
        assert next(said).endswith("two")
        world.store(controller.job, "logs/w1/000001.log", line(3, "three"))
        assert next(said) == "[w1] 2026-01-01T12:00:03Z three"
        world.store(controller.job, "logs/w0/000003.log", line(4, "four"))
        controller.report(finished("succeeded"))
        assert [text.rpartition(" ")[2] for text in said] == ["four"]


def test_whoever_follows_hears_a_segment_grow(world: World, wire: httpx.Client, reads: Reads) -> None:
    controller = world.run()
    texts = [line(second, f"text {second}") for second in range(1, 4)]
    world.store(controller.job, "logs/w0/000000.log", texts[0])
    with following(wire, controller.job, tail=5) as said:
        assert next(said).endswith("text 1")
        world.store(controller.job, "logs/w0/000000.log", b"".join(texts[:2]))
        assert next(said).endswith("text 2")
        world.store(controller.job, "logs/w0/000000.log", b"".join(texts))
        controller.report(finished("succeeded"))
        assert [text[-6:] for text in said] == ["text 3"]
    ends = [len(b"".join(texts[:count])) for count in range(4)]
    assert [(start, stop) for _, start, stop in reads] == list(pairwise(ends)), "nothing is read twice"


def test_lines_that_come_between_a_look_and_its_reading_come_with_the_next(world: World, job: str) -> None:
    folder = Folder(f"{world.settings.storage_url}/{job}")
    lines = logs.read(folder, "w1", None)
    world.store(job, "logs/w1/000001.log", line(2, "two") + line(4, "four") + line(6, "six"))
    assert [text[-5:] for text in lines] == [" two\n", "four\n"]


def test_a_storage_that_is_away_for_a_while_has_nothing_new(
    world: World, wire: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = world.run()
    world.store(controller.job, "logs/w0/000001.log", line(1, "one"))
    list_files, refused = Folder.files, Event()

    def away(_: Folder, __: str) -> list[Stored]:
        refused.set()
        raise Unavailable("The storage does not answer.")

    with following(wire, controller.job) as said:
        assert next(said).endswith("one")
        monkeypatch.setattr(Folder, "files", away)
        assert refused.wait(PATIENCE_S)
        world.store(controller.job, "logs/w0/000002.log", line(2, "two"))
        controller.report(finished("succeeded"))
        monkeypatch.setattr(Folder, "files", list_files)
        assert [text.rpartition(" ")[2] for text in said] == ["two"]


def test_followed_from_the_tail_on(world: World, wire: httpx.Client, job: str) -> None:
    with following(wire, job, rank="w0", tail=1) as said:
        assert next(said).endswith("five")
        world.store(job, "logs/w0/000003.log", line(6, "six") + line(7, "seven"))
        assert [next(said)[-3:], next(said)[-5:]] == ["six", "seven"]
        world.http.post(f"/v1/jobs/{job}/cancel")
        assert list(said) == []


def test_following_a_job_that_has_ended_is_reading_it(world: World, job: str) -> None:
    world.http.post(f"/v1/jobs/{job}/cancel")
    assert read(world, job, follow=True) == read(world, job)


def test_a_deleted_job_ends_the_following(world: World, wire: httpx.Client, job: str) -> None:
    with following(wire, job, rank="w1") as said:
        assert next(said).endswith("two")
        world.lose(job)
        assert [text[-4:] for text in said] == ["four"]


def test_of_a_long_log_no_more_is_read_than_is_taken(world: World, job: str, reads: Reads) -> None:
    for number in range(100):
        world.store(job, f"logs/w2/{number:06}.log", b"".join(line(6, f"line {each}") for each in range(100)))

    async def take_some() -> None:
        coming = logs.follow(Folder(jobs.storage(world.database, job)), "w2", None, lambda: False, 3600.0)
        assert (await anext(coming)).lines == []
        assert len((await anext(coming)).lines) == logs.AT_ONCE

    asyncio.run(take_some())
    assert len(reads) == logs.AT_ONCE / 100


def test_following_without_the_storage_is_refused(world: World, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise Unavailable("The storage does not answer.")

    monkeypatch.setattr(Folder, "files", away)
    problem(world.http.get(f"/v1/jobs/{job}/logs", params={"follow": True}), 503, "unavailable")


def test_following_a_worker_that_left_nothing_ends_with_the_job(world: World, wire: httpx.Client, job: str) -> None:
    with following(wire, job, rank="7") as said:
        world.store(job, "logs/w7/000001.log", line(7, "seven"))
        assert next(said).endswith("seven")
        world.http.post(f"/v1/jobs/{job}/cancel")
        assert list(said) == []
    problem(world.http.get(f"/v1/jobs/{job}/logs?rank=8&follow=true"), 404, "not_found")


def test_lines_that_nobody_hears_are_not_looked_for(
    wire: httpx.Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Event()

    async def watched(*arguments: Any) -> AsyncIterator[logs.News]:
        try:
            async for news in follow(*arguments):
                yield news
        finally:
            stopped.set()

    follow = logs.follow
    monkeypatch.setattr(logs, "follow", watched)
    with following(wire, job) as said:
        next(said)
    assert stopped.wait(PATIENCE_S)


def test_the_storage_is_looked_at_no_more_often_than_is_set(
    world: World, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look costs a request for each thousand segments, however quick the streams of events are."""
    looks: list[str] = []

    def noted(folder: Folder, below: str) -> list[Stored]:
        looks.append(below)
        return files(folder, below)

    files = Folder.files
    monkeypatch.setattr(Folder, "files", noted)
    seldom = world.settings.model_copy(update={"log_poll_s": 3600.0})
    with (
        served(create_app(seldom, world.database)) as address,
        httpx.Client(base_url=address) as http,
        following(http, job) as said,
    ):
        assert len(list(islice(said, 5))) == 5
        time.sleep(20 * seldom.event_poll_s)
    assert looks == [logs.FOLDER]


def test_of_a_tail_no_segment_is_read_that_has_none_of_it(world: World, job: str, reads: Reads) -> None:
    read(world, job, rank="0", tail=1)
    assert [path for path, _, _ in reads] == ["logs/w0/000002.log"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("tail=-1", "?tail"), ("tail=100001", "?tail"), ("follow=maybe", "?follow"), ("lines=3", "?lines")],
)
def test_a_wrong_parameter_is_named(world: World, job: str, query: str, pointer: str) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs/{job}/logs?{query}"))) == [pointer]
