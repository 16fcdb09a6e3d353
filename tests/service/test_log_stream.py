"""The log as a stream of messages, each of which is a place to go on from: no line is lost or told twice."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_schemas import Client
from api_schemas.stream import Message, lines, messages
from service import logs
from service.app import create_app
from service.storage import Folder
from tests.service.world import World, line, pointers, problem
from tests.serving import served

PATIENCE_S = 60
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def job(world: World) -> str:
    """Two workers took turns."""
    job = world.submit()
    world.store(job, "logs/w0/000000.log", line(1, "one") + line(3, "three"))
    world.store(job, "logs/w1/000000.log", line(2, "two"))
    return job


@contextmanager
def heard(wire: httpx.Client, job: str, after: str | None = None, **params: Any) -> Iterator[Iterator[Message]]:
    headers = STREAM | ({"Last-Event-ID": after} if after else {})
    with wire.stream("GET", f"/v1/jobs/{job}/logs", params=params, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield messages(lines(response.iter_text()))


def said(message: Message) -> list[str]:
    return [text.rpartition(" ")[2] for text in json.loads(message.data)["lines"]]


def test_each_message_is_a_place_to_go_on_from(world: World, wire: httpx.Client, job: str) -> None:
    with heard(wire, job) as told:
        begin, first = islice(told, 2)
    assert (said(begin), said(first)) == ([], ["one", "two", "three"])
    world.store(job, "logs/w0/000000.log", line(1, "one") + line(3, "three") + line(4, "four"))
    world.store(job, "logs/w1/000001.log", line(5, "five"))
    with heard(wire, job, after=first.id) as told:
        assert said(next(told)) == ["four", "five"]
    with heard(wire, job, after=begin.id) as told:
        assert said(next(told)) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("tail", [0, 1, 2])
def test_what_came_before_the_tail_does_not_come_after_it(
    world: World, wire: httpx.Client, job: str, tail: int
) -> None:
    with heard(wire, job, tail=tail) as told:
        begin = next(told)
    world.store(job, "logs/w2/000000.log", line(6, "six"))
    with heard(wire, job, after=begin.id, tail=tail) as told:
        assert said(next(told)) == [*["two", "three"][2 - tail :], "six"]


def test_the_stream_ends_with_the_job(world: World, wire: httpx.Client, job: str) -> None:
    world.http.post(f"/v1/jobs/{job}/cancel")
    with heard(wire, job) as told:
        next(told)
        (last,) = told
    assert said(last) == ["one", "two", "three"]


def test_a_stream_that_is_silent_is_kept_alive(wire: httpx.Client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.02)
    with wire.stream("GET", f"/v1/jobs/{job}/logs?tail=0", headers=STREAM) as response:
        assert ": ping" in lines(response.iter_text())


@pytest.mark.parametrize(
    "place", ["", "x", "w0/1", "w0/1:", "w0/1:-1", "w0/1:1,", "w0/1:1,-", "w0/1:" + "9" * 19, "/:1"]
)
def test_a_place_that_is_none_is_refused(world: World, job: str, place: str) -> None:
    response = world.http.get(f"/v1/jobs/{job}/logs", headers=STREAM | {"Last-Event-ID": place})
    assert pointers(response) == {"Last-Event-ID": "Must be a cursor as it came from this service."}


def test_what_cannot_be_followed_is_refused(world: World, job: str) -> None:
    problem(world.http.get("/v1/jobs/nobody/logs", headers=STREAM), 404, "not_found")
    assert list(pointers(world.http.get(f"/v1/jobs/{job}/logs?tail=-1", headers=STREAM))) == ["?tail"]


def test_who_follows_outlives_the_service(world: World, job: str) -> None:
    told: Queue[str] = Queue()

    def read(address: str) -> None:
        with Client(address, waits=(0.05,)) as client:
            for text in client.logs(job, follow=True, waits=lambda error: told.put(error.code)):
                told.put(text.rpartition(" ")[2])
        told.put("over")

    with served(create_app(world.settings, world.database)) as address:
        reader = Thread(target=read, args=(address,))
        reader.start()
        assert [told.get(timeout=PATIENCE_S) for _ in range(3)] == ["one", "two", "three"]
    assert told.get(timeout=PATIENCE_S) == "service_unreachable"
    world.store(job, "logs/w0/000000.log", line(1, "one") + line(3, "three") + line(4, "four"))
    with served(create_app(world.settings, world.database), int(address.rpartition(":")[2])):
        assert told.get(timeout=PATIENCE_S) == "four"
        world.store(job, "logs/w1/000001.log", line(5, "five"))
        assert told.get(timeout=PATIENCE_S) == "five"
        world.http.post(f"/v1/jobs/{job}/cancel")
        assert told.get(timeout=PATIENCE_S) == "over"
        reader.join()


WORKERS = st.sampled_from(["w0", "w1", "w10"])
TEXTS = st.lists(st.binary(max_size=4).map(lambda text: text.replace(b"\n", b"\r")), min_size=1, max_size=4)
STEPS = st.lists(st.tuples(WORKERS, TEXTS, st.booleans()), max_size=6)
"""Whose lines come, which, and whether in a new segment."""


class Disk:
    """A job's folder with logs, and what is in them."""

    def __init__(self, root: str) -> None:
        self.folder = Folder(root)
        self.lines: dict[str, list[str]] = defaultdict(list)
        self._root = Path(root)
        self._number: dict[str, int] = defaultdict(int)
        self._second = 0

    def grow(self, worker: str, texts: list[bytes], anew: bool) -> None:
        self._number[worker] += anew
        path = self._root / "logs" / worker / f"{self._number[worker]:06d}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for text in texts:
                self._second += 1
                whole = b"%06d %s" % (self._second, text)
                file.write(whole + b"\n")
                self.lines[worker].append(whole.decode(errors="replace"))


async def follow(disk: Disk, tail: int | None, after: logs.Heard | None, messages: int | None) -> list[logs.News]:
    """So many messages, or all of a job that has ended."""
    told = []
    async for news in logs.follow(disk.folder, None, tail, lambda: True, 0.0, after):
        told.append(news)
        if len(told) == messages:
            break
    return told


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.tuples(STEPS, st.integers(1, 3)), min_size=1, max_size=4), tail=st.none() | st.integers(0, 5))
def test_wherever_it_breaks_off_no_line_is_lost_or_told_twice(
    parts: list[tuple[list[tuple[str, list[bytes], bool]], int]], tail: int | None
) -> None:
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "AT_ONCE", 2)
        disk, told, after, skipped = Disk(root), [], None, 0
        for number, (steps, messages) in enumerate(parts):
            for step in steps:
                disk.grow(*step)
            if number == 0 and tail is not None:
                skipped = max(0, sum(map(len, disk.lines.values())) - tail)
            for news in anyio.run(follow, disk, tail, after, messages):
                told += news.lines
                after = logs.heard_at(logs.place(news.heard), "x")
        for news in anyio.run(follow, disk, tail, after, None):
            told += news.lines
    whole = {f"[{worker}] {text}" for worker, texts in disk.lines.items() for text in texts}
    by_time = sorted(whole, key=lambda text: text.partition("] ")[2])
    assert sorted(told, key=lambda text: text.partition("] ")[2]) == by_time[skipped:]
    for worker, texts in disk.lines.items():
        mine = [text.partition("] ")[2] for text in told if text.startswith(f"[{worker}] ")]
        assert mine == texts[len(texts) - len(mine) :], "in its order"
