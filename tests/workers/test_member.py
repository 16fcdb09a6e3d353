"""A member as its control side sees it; what it trains is the matter of `test_sudden`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from api_schemas.exchange import Launch
from tests.workers.company import HOST, Plane, plane
from workers import member as module
from workers.member import Member
from workers.membership import Plan
from workers.mesh import Mesh
from workers.status import Phase


def plan(generation: int) -> Plan:
    return Plan(generation=generation, members=("w0", "w1"), kappa=(1.0, 8.0))


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """One whose training thread does not run."""
    return Member(Launch(job="j", incarnation=1, spec=plane(), storage=str(tmp_path)), "w0")


def pending(member: Member) -> int:
    return member.poll(version=-1, heard=0, seen=0, wait_s=0.0).pending


def test_the_newest_generation_that_was_announced_waits(member: Member) -> None:
    """Calls run in threads of their own: one that was made first may come second."""
    for generation in (2, 4, 3):
        member.announce(plan(generation))
    assert pending(member) == 4


def test_a_generation_that_was_severed_is_never_entered(member: Member) -> None:
    member.announce(plan(2))
    member.sever(2)
    member.announce(plan(1))
    member.announce(plan(2))
    assert pending(member) == 0
    member.announce(plan(3))
    assert pending(member) == 3


def meeting(generation: int, store: Any, *members: str) -> Plan:
    return Plan(generation=generation, members=members, kappa=(1.0, 8.0), host=HOST, port=store.port)


def meanwhile(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """Another thread makes this call at the moment at which the first generation is taken up, or right after it."""
    made: list[threading.Thread] = []

    def build(*args: Any, **settings: Any) -> Mesh:
        if not made:
            made.append(threading.Thread(target=call))
            made[0].start()
            made[0].join(0.2)
        return Mesh(*args, **settings)

    monkeypatch.setattr(module, "Mesh", build)


def reach(member: Member, condition: Callable[[Any], bool]) -> None:
    until = time.monotonic() + 60
    while not condition(status := member.poll(version=-1, heard=0, seen=0, wait_s=0.0)):
        assert time.monotonic() < until, status
        time.sleep(0.01)


@pytest.fixture
def store() -> Any:
    return dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def test_one_that_takes_up_a_generation_as_the_next_is_announced_goes_to_that(
    member: Member, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else will come to the first."""
    meanwhile(monkeypatch, lambda: member.announce(meeting(2, store, "w0")))
    member.start()
    member.announce(meeting(1, store, "w0", "w1"))
    reach(member, lambda status: status.phase is Phase.TRAINING and status.generation == 2)
    member.retire()
    reach(member, lambda status: status.phase is Phase.LEFT)


def test_one_that_takes_up_a_generation_as_it_is_severed_gets_out(
    member: Member, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, lambda: member.sever(1))
    member.start()
    member.announce(meeting(1, store, "w0", "w1"))
    reach(member, lambda status: status.phase is Phase.READY and status.generation == 1)
    member.retire()
    reach(member, lambda status: status.phase is Phase.LEFT)


@pytest.mark.parametrize("where", ["train_data", "loss"])
def test_a_recipe_that_exits_fails_as_one_that_raises(
    member: Member, store: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While it warms up, and in a step. Threads that end by sys.exit say nothing."""

    def leave(*_: Any) -> Any:
        sys.exit("There is no data.")

    monkeypatch.setattr(Plane, where, leave)
    member.start()
    member.announce(meeting(1, store, "w0"))
    reach(member, lambda status: status.phase is Phase.FAILED)
    failure = member.poll(version=-1, heard=0, seen=0, wait_s=0.0).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("recipe_raised", "The recipe raised SystemExit: There is no data.")
    assert "in leave" in failure.traceback


def test_one_that_is_told_to_end_with_a_generation_that_it_is_out_of_stays_for_the_next(
    member: Member, store: Any
) -> None:
    """It may be the last with the state."""
    member.start()
    member.announce(meeting(1, store, "w0"))
    reach(member, lambda status: status.phase is Phase.TRAINING)
    member.sever(1)
    reach(member, lambda status: status.phase is Phase.READY and status.broken == 1)
    member.retire(1)
    member.announce(meeting(2, store, "w0"))
    reach(member, lambda status: status.phase is Phase.TRAINING and status.generation == 2)
    member.retire(1)
    member.retire(2)
    reach(member, lambda status: status.phase is Phase.LEFT)
    (saved,) = [
        record
        for _, record in member.poll(version=-1, heard=0, seen=0, wait_s=0.0).records
        if record["type"] == "checkpoint_saved"
    ]
    assert saved["samples"] > 0
