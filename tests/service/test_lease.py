"""The lease: never two at once, and never long without one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from sqlmodel import select

from api_schemas.errors import Unavailable
from api_schemas.views import Phase
from service.db import Database
from service.lease import NOBODY, Lease, LeaseLost, Sight, Stand, Term, is_free, look, new_holder, reign
from service.processes import wait_until
from service.reconciler import Reconciler
from service.tables import LeaseRow
from tests.service.scene import PACE, Scene
from tests.service.world import Clock

QUICK = Term(term=0.6, margin=0.2, renew=0.1, look=0.02)
ROOT = Path(__file__).parents[2]
TAKEOVER_S = 10


# -- what is decided ---------------------------------------------------------------------------------------------------


def test_a_stand_is_seen_since_it_was_first_seen() -> None:
    first = look(None, Stand("a", 1), 5)
    again = look(first, Stand("a", 1), 9)
    renewed = look(again, Stand("a", 2), 12)
    assert (first.since, again.since, renewed.since) == (5, 5, 12)


@pytest.mark.parametrize(
    ("holder", "now", "free"),
    [(NOBODY, 0, True), ("me", 0, True), ("other", 0, False), ("other", 5.9, False), ("other", 6, True)],
)
def test_the_lease_is_free_when_nobody_renewed_it_for_a_term(holder: str, now: float, free: bool) -> None:
    assert is_free(Sight(Stand(holder, 7), 0), "me", now, 6) is free


def test_no_two_holders_have_one_name() -> None:
    assert new_holder() != new_holder()


# -- on a database -----------------------------------------------------------------------------------------------------


def lease(database: Database, holder: str, term: Term = QUICK) -> Lease:
    return Lease(database, holder, time.monotonic, term)


def row(database: Database) -> LeaseRow:
    with database.reading() as session:
        return session.exec(select(LeaseRow)).one()


def test_it_is_renewed_while_other_work_holds_all_threads(database: Database) -> None:
    released = Event()

    async def script() -> None:
        busy = [asyncio.create_task(asyncio.to_thread(released.wait)) for _ in range(64)]
        holder = lease(database, "a")
        await holder.acquire()
        keeping = asyncio.create_task(holder.keep())
        try:
            await asyncio.sleep(2 * QUICK.term)
            assert not keeping.done()
            assert row(database).renewals > 2
        finally:
            released.set()
            keeping.cancel()
            await asyncio.gather(*busy)

    played(script)


def played(script: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TAKEOVER_S):
            await script()

    asyncio.run(limited())


def test_the_first_takes_it_at_once_and_renews_it(database: Database) -> None:
    async def script() -> None:
        first = lease(database, "a")
        await first.acquire()
        before = row(database)
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(2 * QUICK.term)
        assert not keeping.done()
        keeping.cancel()
        assert before.holder == row(database).holder == "a"
        assert row(database).renewals >= before.renewals + 2

    played(script)


def test_another_waits_for_the_whole_term(database: Database) -> None:
    async def script() -> None:
        await lease(database, "a").acquire()
        taken = time.monotonic()
        await lease(database, "b").acquire()
        assert time.monotonic() - taken >= QUICK.term

    played(script)


def test_who_looked_before_a_renewal_does_not_get_it(database: Database) -> None:
    async def script() -> None:
        first = lease(database, "a")
        await first.acquire()
        seen = Stand(row(database).holder, row(database).renewals)
        assert await first._claim(seen)
        assert not await lease(database, "b")._claim(seen)

    played(script)
    assert row(database).holder == "a"


def test_what_was_given_back_is_taken_at_once(database: Database) -> None:
    async def script() -> None:
        long = Term(term=600)
        first = lease(database, "a", long)
        await first.acquire()
        await first.give_back()
        await lease(database, "b", long).acquire()

    played(script)
    assert row(database).holder == "b"


def test_a_successor_of_the_same_name_goes_on_at_once(database: Database) -> None:
    async def script() -> None:
        await lease(database, "a", Term(term=600)).acquire()
        await lease(database, "a", Term(term=600)).acquire()

    played(script)


def test_who_lost_it_hears_of_it_and_gives_nothing_back(database: Database) -> None:
    async def script() -> None:
        first = lease(database, "a")
        await first.acquire()
        await lease(database, "b").acquire()
        with pytest.raises(LeaseLost):
            await first.keep()
        await first.give_back()

    played(script)
    assert row(database).holder == "b"


@pytest.mark.parametrize("blocked_s", [0, 5])
def test_who_cannot_renew_stops_before_another_may_take_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, blocked_s: float
) -> None:
    """Whether the database refuses at once, or does not answer at all."""
    released = time.monotonic() + blocked_s

    def refuse(*_: object) -> bool:
        time.sleep(max(0, min(1, released - time.monotonic())))
        raise Unavailable

    async def script() -> None:
        first = lease(database, "a", Term(term=3, margin=2, renew=0.1, look=0.02))
        await first.acquire()
        since = time.monotonic()  # nobody can have seen its stand much earlier
        monkeypatch.setattr(first, "_replace", refuse)
        with pytest.raises(LeaseLost):
            await first.keep()
        assert time.monotonic() - since < 2

    played(script)


def test_a_reign_ends_without_the_database_and_another_begins(database: Database) -> None:
    reigns: list[int] = []

    async def work() -> None:
        reigns.append(len(reigns))
        if len(reigns) < 3:
            raise Unavailable
        await asyncio.sleep(600)

    async def script() -> None:
        reigning = asyncio.create_task(reign(lease(database, "a"), work))
        while len(reigns) < 3:
            await asyncio.sleep(0.01)
        reigning.cancel()
        await asyncio.gather(reigning, return_exceptions=True)

    played(script)
    assert row(database).holder == NOBODY


def test_work_that_fails_ends_it_and_leaves_the_lease(database: Database) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    async def script() -> None:
        with pytest.raises(ZeroDivisionError):
            await reign(lease(database, "a"), work)

    played(script)
    assert row(database).holder == NOBODY


def test_another_service_goes_on_with_the_jobs(database: Database, clock: Clock) -> None:
    scene = Scene(database, clock, 4)

    def serving(holder: str) -> asyncio.Task[None]:
        work = Reconciler(scene.roster, scene.cluster, pace=PACE).run
        return asyncio.create_task(reign(lease(database, holder), work))

    async def script() -> None:
        scene.submit("a")
        first = serving("one")
        await scene.until_phase("a", Phase.RUNNING)
        second = serving("two")
        await asyncio.sleep(2 * QUICK.term)
        assert row(database).holder == "one"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        scene.controller("a").advance(100)
        scene.controller("a").finish("succeeded")
        await scene.until_phase("a", Phase.SUCCEEDED)
        assert row(database).holder == "two"
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    played(script)
    assert [launch.incarnation for launch in scene.cluster.launches] == [1]


# -- between processes -------------------------------------------------------------------------------------------------


class Contenders:
    """Processes on one database, and what they wrote down."""

    def __init__(self, url: str, notes: Path) -> None:
        self._url = url
        self._notes = notes
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, holder: str, term: str = "usual") -> None:
        command = [sys.executable, "-m", "tests.service.contender", self._url, term, str(self._notes), holder]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._processes[holder] = subprocess.Popen(command, cwd=ROOT, env=environment)

    def signal(self, holder: str, number: signal.Signals) -> None:
        self._processes[holder].send_signal(number)

    def notes(self) -> list[tuple[str, float]]:
        """Who worked, and when, in the order of time."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        noted = [line.split() for line in lines]
        return sorted(((holder, float(at)) for holder, at in noted), key=lambda note: note[1])

    def leader(self) -> str:
        return self.notes()[-1][0]

    def await_work_of(self, *holders: str) -> None:
        known = len(self.notes())
        assert wait_until(lambda: any(who in holders for who, _ in self.notes()[known:]), 3 * TAKEOVER_S)

    def changes(self) -> list[float]:
        """The gaps where another went on, in seconds."""
        return [later - earlier for (one, earlier), (other, later) in pairwise(self.notes()) if one != other]

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def contenders(database_url: str, tmp_path: Path) -> Iterator[Contenders]:
    contenders = Contenders(database_url, tmp_path / "notes")
    yield contenders
    contenders.end()


def test_a_leader_that_is_killed_is_followed_within_ten_seconds(contenders: Contenders) -> None:
    for name in ("a", "b", "c"):
        contenders.start(name)
    contenders.await_work_of("a", "b", "c")
    others = {"a", "b", "c"} - {contenders.leader()}
    contenders.signal(contenders.leader(), signal.SIGKILL)
    contenders.await_work_of(*others)
    time.sleep(1)
    (gap,) = contenders.changes()
    assert Term().term - Term().renew < gap < TAKEOVER_S


def test_a_leader_that_slept_through_its_term_does_not_go_on(contenders: Contenders, database: Database) -> None:
    contenders.start("a", "short")
    contenders.await_work_of("a")
    contenders.start("b", "short")
    before = row(database)
    assert wait_until(lambda: row(database) != before, TAKEOVER_S), "stopped between renewals, it holds no lock"
    contenders.signal("a", signal.SIGSTOP)
    contenders.await_work_of("b")
    contenders.signal("a", signal.SIGCONT)
    woke = time.monotonic()
    time.sleep(1)
    late = [at for who, at in contenders.notes() if who == "a" and at > woke]
    assert len(late) <= 1, "one step may have been due before the clock was looked at"
    assert contenders.leader() == "b"
