"""What the API carries: `./run bench api [--json FILE]`, on SQLite and on PostgreSQL.

One API process, 10,000 jobs of which 100 run, a million points of curves. Who asks runs in this process, on the same
cores. Each figure is the median of three rounds.

- `poll_304`: 16 connections, each of which polls a job with its ETag and is answered 304. `get_200`: without the ETag;
  `get_200_cold`: another of all the jobs each time.
- `list`: one connection, pages of 50 jobs; bytes as they travel, compressed as browsers and HTTP clients ask for it.
- `ingest`: reports of 200 events, parsed and committed by a process of its own, as the reconciler does.
- `mixed`, all at once: 2,000 events/s from 100 jobs, 500 listeners to their streams, and 500 jobs, those among them,
  polled once a second each.
  `sse` is from when an event was made until it was heard, with the intake before it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

from service.db import Database, connect, migrate
from service.processes import wait_until
from tests.benchmarks import finish, say
from tests.benchmarks.load.callers import Caller, Request, Tally, closed_loop, connected, etag, paced
from tests.benchmarks.load.listeners import listening
from tests.benchmarks.load.store import Stored, fill
from tests.postgres import HOW_TO_GET_IT, binaries, postgres_server

CONNECTIONS = 16
LISTENERS, POLLS_PER_S, EVENTS_PER_S = 500, 500, 2000
GZIP = "Accept-Encoding: gzip\r\n"
PATIENCE_S = 60


def main(
    databases: Annotated[str, typer.Option(help="Which, separated by commas.")] = "sqlite,postgresql",
    jobs: Annotated[int, typer.Option(help="That are stored.")] = 10_000,
    running: Annotated[int, typer.Option(help="Of them, those that run.")] = 100,
    points: Annotated[int, typer.Option(help="Of curves, that are stored.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="Of which the median counts.")] = 3,
    seconds: Annotated[float, typer.Option(help="Of one measurement.")] = 5.0,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row a round, write all."""
    rows = []
    for name in databases.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-api-") as folder, DATABASES[name](Path(folder)) as url:
            database = Database(connect(url), lambda: datetime.now(UTC))
            migrate(database.engine)
            stored = fill(database, jobs, running, points)
            with serving(url, Path(folder)) as service:
                found = [asyncio.run(Round(service, url, stored, seconds).measure()) for _ in range(rounds)]
            database.engine.dispose()
        for each in found:
            say({"db": name, **each})
        rows.append({"db": name, **middle(found)})
    finish({"rows": rows}, output)


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """The URL of a file."""
    yield f"sqlite:///{folder / 'emascale.db'}"


@contextmanager
def postgresql(_folder: Path) -> Iterator[str]:
    """The URL on a server of its own, which writes to the disk before it answers, as in earnest."""
    found = binaries()
    assert found is not None, HOW_TO_GET_IT
    with postgres_server(found, durable=True) as server, server.database() as url:
        yield url


DATABASES = {"sqlite": sqlite, "postgresql": postgresql}


class Service:
    """An API process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    def rss_mb(self) -> float:
        """Of the process now."""
        (line,) = [line for line in Path(f"/proc/{self.process.pid}/status").read_text().split("\n") if "VmRSS" in line]
        return round(int(line.split()[1]) / 1000, 1)


@contextmanager
def serving(url: str, folder: Path) -> Iterator[Service]:
    """`python -m service api`, as `serve` starts it."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
        environment = os.environ | {"EMASCALE_DATABASE_URL": url, "EMASCALE_DATA_FOLDER": str(folder)}
        command = [sys.executable, "-m", "service", "api", f"--fd={listener.fileno()}"]
        process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
    try:
        assert wait_until(lambda: _answers(port), PATIENCE_S)
        yield Service(port, process)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    async def ask() -> int:
        caller = await connected(port)
        return (await caller.ask(("/healthz", "")))[0]

    try:
        return asyncio.run(asyncio.wait_for(ask(), 1)) == 200
    except OSError:
        return False


class Round:
    """Every measurement once."""

    def __init__(self, service: Service, url: str, stored: Stored, seconds: float) -> None:
        self._service = service
        self._url = url
        self._running = [f"/v1/jobs/{job}" for job in stored.running]
        self._all = [f"/v1/jobs/{job}" for job in (*stored.running, *stored.ended)]
        self._jobs = stored.running
        self._seconds = seconds

    async def measure(self) -> dict[str, Any]:
        """One row."""
        callers = [await connected(self._service.port) for _ in range(CONNECTIONS)]
        row = await self._poll(callers) | await self._whole(callers)
        for caller in callers:
            caller.close()
        row |= await self._list() | await self._ingest() | {"mixed": await self._mixed()}
        return row | {"rss_mb": self._service.rss_mb()}

    async def _poll(self, callers: list[Caller]) -> dict[str, float]:
        tags = [etag((await callers[0].ask((path, "")))[1]) for path in self._running[:CONNECTIONS]]
        known = list(zip(self._running, tags, strict=False))
        tally, took = await closed_loop(callers, self._seconds, known.__getitem__)
        assert set(tally.statuses) == {304}, tally.statuses
        return {"poll_304_rps": round(len(tally.seconds) / took), "poll_304_p99_ms": tally.share(0.99)}

    async def _whole(self, callers: list[Caller]) -> dict[str, float]:
        tally, took = await closed_loop(callers, self._seconds, lambda number: (self._running[number], ""))
        cold, cold_took = await closed_loop(callers, self._seconds, lambda _: (random.choice(self._all), ""))
        assert {*tally.statuses, *cold.statuses} == {200}, (tally.statuses, cold.statuses)
        return {
            "get_200_rps": round(len(tally.seconds) / took),
            "get_200_cold_rps": round(len(cold.seconds) / cold_took),
        }

    async def _list(self) -> dict[str, float]:
        caller = await connected(self._service.port, GZIP)
        ids = [path.rpartition("/")[2] for path in self._all]
        pages = ["/v1/jobs?limit=50", *(f"/v1/jobs?limit=50&after={job}" for job in ids[:-50:500])]
        tally, _ = await closed_loop([caller], self._seconds, lambda _: (random.choice(pages), ""))
        assert set(tally.statuses) == {200}, tally.statuses
        caller.close()
        size = round(tally.bytes / len(tally.seconds))
        return {"list_p50_ms": tally.share(0.5), "list_p99_ms": tally.share(0.99), "list_bytes": size}

    async def _ingest(self) -> dict[str, float]:
        found = await self._report("--events=200", "--total=100000")
        return {"ingest_eps": found["events_per_s"]}

    async def _mixed(self) -> dict[str, float]:
        polls, heard = Tally(), Tally()
        heard_by = await listening(
            self._service.port, [self._jobs[n % len(self._jobs)] for n in range(LISTENERS)], heard
        )
        callers = [await connected(self._service.port) for _ in range(CONNECTIONS)]
        polled = Polled(random.sample(self._all, POLLS_PER_S - len(self._running)) + self._running)
        taken, polls = await asyncio.gather(
            self._report(
                "--events=20", f"--per-s={EVENTS_PER_S}", f"--seconds={2 * self._seconds}", f"--jobs={len(self._jobs)}"
            ),
            paced(callers, POLLS_PER_S, 2 * self._seconds, polled),
        )
        await asyncio.sleep(1)
        lost = sum(listener.lost for listener in heard_by)
        for each in (*heard_by, *callers):
            each.close()
        refused = sum(count for status, count in polls.statuses.items() if status not in (200, 304))
        return {
            "poll_p99_ms": polls.share(0.99),
            "sse_p50_ms": heard.share(0.5),
            "sse_p99_ms": heard.share(0.99),
            "ingest_p99_ms": taken["p99_ms"],
            "errors": int(taken["errors"]) + lost + refused,
            "heard": len(heard.seconds),
            "events_per_s": taken["events_per_s"],
        }

    async def _report(self, *options: str) -> dict[str, float]:
        """What the intake says of itself."""
        command = [sys.executable, "-m", "tests.benchmarks.load.intake", self._url, *options]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        found: dict[str, float] = json.loads(said)
        return found


class Polled:
    """Jobs that are polled in turn, each with the ETag that it was last answered with."""

    def __init__(self, paths: list[str]) -> None:
        random.shuffle(paths)
        self._turn = cycle(paths)
        self._tags: dict[str, str] = {}

    def __call__(self, _number: int) -> Request:
        """The next one's turn."""
        path = next(self._turn)
        return path, self._tags.get(path, "")

    def answered(self, path: str, head: bytes) -> None:
        """Keep the ETag for the next turn."""
        self._tags[path] = etag(head)


def middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure."""
    return {
        name: middle([row[name] for row in rows])
        if isinstance(value, dict)
        else statistics.median(row[name] for row in rows)
        for name, value in rows[0].items()
    }


if __name__ == "__main__":
    typer.run(main)
