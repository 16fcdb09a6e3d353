"""The log of a worker: every line once, with its time, whatever the storage does."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.workers.shelf import Shelf
from workers import worklog
from workers.rank import Rank
from workers.status import Phase, Status
from workers.storage import Storage
from workers.worklog import Worklog

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def opened(shelf: Storage, worker: str = "w0") -> Worklog:
    seconds = iter(range(10_000_000))
    return Worklog(shelf, worker, lambda: START + timedelta(seconds=next(seconds)))


def stored(shelf: Shelf) -> list[str]:
    """All lines, without their times."""
    text = "".join(shelf.objects[key].decode() for key in sorted(shelf.objects))
    return [line.partition(" ")[2] for line in text.splitlines()]


def test_lines_are_stored_with_their_time(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    log = opened(storage)
    log.add("begun")
    log.add("läuft")
    log.store()
    log.add("done")
    log.store()
    log.store()
    assert storage.list() == ["logs/w0/000000.log"]
    assert storage.read("logs/w0/000000.log").decode() == (
        "2026-01-01T00:00:01.000+00:00 begun\n2026-01-01T00:00:02.000+00:00 läuft\n2026-01-01T00:00:04.000+00:00 done\n"
    )


def test_a_segment_only_grows_until_it_is_large_enough(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklog, "SEGMENT_S", 1e9)
    monkeypatch.setattr(worklog, "SEGMENT_BYTES", 1000)
    log, written = opened(shelf), []
    for number in range(100):
        log.add(f"line {number}")
        log.store()
        written.append(dict(shelf.objects))
    assert stored(shelf) == [f"line {number}" for number in range(100)]
    for before, after in itertools.pairwise(written):
        assert all(after[key].startswith(text) for key, text in before.items())
    *full, last = (len(shelf.objects[key]) for key in sorted(shelf.objects))
    assert full
    assert all(1000 <= size < 1050 for size in full)
    assert last < 1000


def test_a_segment_ends_when_it_is_old_enough(shelf: Shelf) -> None:
    log = opened(shelf)
    for number in range(300):  # each line takes a second, and so does a look at its age
        log.add(f"line {number}")
        log.store()
    assert stored(shelf) == [f"line {number}" for number in range(300)]
    assert len(shelf.objects) in range(600 // 70, 600 // 60 + 2)


def test_another_life_counts_on(shelf: Shelf) -> None:
    for line in ("first life", "second life"):
        log = opened(shelf)
        log.add(line)
        log.store()
    opened(shelf, "w1").store()
    assert sorted(shelf.objects) == ["logs/w0/000000.log", "logs/w0/000001.log"]
    assert stored(shelf) == ["first life", "second life"]


@pytest.mark.parametrize("action", ["write", "list"])
def test_what_the_storage_refused_is_stored_with_the_next_lines(shelf: Shelf, action: str) -> None:
    log = opened(shelf)
    shelf.refused = {action}
    log.add("one")
    log.store()
    shelf.refused = set()
    log.add("two")
    log.store()
    assert stored(shelf) == ["one", "two"]
    assert list(shelf.objects) == ["logs/w0/000000.log"]


def test_the_tail_is_the_last_lines_stored_or_not(shelf: Shelf) -> None:
    log = opened(shelf)
    for number in range(worklog.KEPT + 5):
        log.add(f"line {number}")
        if number == 100:
            log.store()
    assert [line.partition(" ")[2] for line in log.tail(2)] == ["line 203", "line 204"]
    assert len(log.tail(10_000)) == worklog.KEPT


def test_two_may_store_at_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own thread every second, and the one that answers the controller at the end."""
    log, write = opened(shelf), shelf.write
    begun, freed = threading.Semaphore(0), threading.Event()

    def slow(key: str, data: bytes) -> None:
        begun.release()
        assert freed.wait(10)
        write(key, data)

    monkeypatch.setattr(shelf, "write", slow)
    failures: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: failures.append(args.exc_value))
    log.add("one")
    storing = [threading.Thread(target=log.store) for _ in range(2)]
    storing[0].start()
    assert begun.acquire(timeout=10)
    storing[1].start()
    begun.acquire(timeout=0.2)  # it would write the same once more
    log.add("two")
    freed.set()
    for thread in storing:
        thread.join(10)
    log.store()
    assert failures == []
    assert stored(shelf) == ["one", "two"]


def test_lines_that_came_while_others_were_stored_are_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than it can hold: the oldest are dropped, but none that was not."""
    monkeypatch.setattr(worklog, "KEPT", 2)
    log, write = opened(shelf), shelf.write

    def busy(key: str, data: bytes) -> None:
        monkeypatch.setattr(shelf, "write", write)
        for number in range(3):
            log.add(f"meanwhile {number}")
        write(key, data)

    monkeypatch.setattr(shelf, "write", busy)
    for number in range(4):
        log.add(f"before {number}")
    log.store()
    log.store()
    assert stored(shelf) == [*(f"before {n}" for n in range(4)), *(f"meanwhile {n}" for n in range(3))]


class Ended:
    """A member whose recipe has raised, and whoever renews its lease."""

    def poll(self, **_: Any) -> Status:
        return Status(phase=Phase.FAILED)

    def renew(self) -> None:
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_a_worker_that_has_ended_says_so_whatever_the_storage_does(shelf: Shelf, hangs: bool) -> None:
    """Asked as its controller asks; the one that stores every second hangs already. And its last lines are stored."""
    log = opened(shelf)
    rank = object.__new__(Rank)
    rank._node, rank._worklog, rank._member, rank._lease = "here", log, Ended(), Ended()  # type: ignore[assignment]
    log.add("one")
    if hangs:
        shelf.open.clear()
        threading.Thread(target=log.store, daemon=True).start()
    log.add("the recipe raised")
    for _ in range(3):
        asked, answers = time.monotonic(), SimpleQueue[Status]()
        threading.Thread(target=lambda to=answers: to.put(rank.poll(0, 0, 0, 0.0)), daemon=True).start()
        assert answers.get(timeout=10).phase is Phase.FAILED
        assert time.monotonic() - asked < 2.0
    assert sum(thread.name == "last-lines" for thread in threading.enumerate()) == hangs
    shelf.open.set()
    log.store()
    assert stored(shelf) == ["one", "the recipe raised"]


# -- what is printed ---------------------------------------------------------------------------------------------------


def captured(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> tuple[Worklog, io.StringIO, io.StringIO]:
    """A log that captures two streams of the test's own, and stores nothing by itself."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(worklog, "EVERY_S", 3600.0)
    log = opened(shelf)
    log.capture()
    return log, out, err


def test_what_is_printed_goes_on_to_where_it_went(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out, err = captured(shelf, monkeypatch)
    print("one\ntwo")
    print("oops", file=sys.stderr, flush=True)
    assert (out.getvalue(), err.getvalue()) == ("one\ntwo\n", "oops\n")
    assert [line.partition(" ")[2] for line in log.tail(9)] == ["one", "two", "oops"]
    assert not sys.stdout.isatty()


def test_a_line_counts_when_it_is_whole(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out, _ = captured(shelf, monkeypatch)
    sys.stdout.write("ha")
    sys.stderr.write("between\n")
    assert sys.stdout.write("lf\nrest") == 7
    assert [line.partition(" ")[2] for line in log.tail(9)] == ["between", "half"]
    assert out.getvalue() == "half\nrest"


def test_captured_lines_are_stored_by_themselves(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(worklog, "EVERY_S", 0.01)
    written, write = threading.Event(), shelf.write

    def tell(key: str, data: bytes) -> None:
        write(key, data)
        written.set()

    monkeypatch.setattr(shelf, "write", tell)
    opened(shelf).capture()
    print("hello")
    assert written.wait(10)
    assert stored(shelf) == ["hello"]
    monkeypatch.setattr(worklog, "EVERY_S", 3600.0)
