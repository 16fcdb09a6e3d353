"""A member as its control side sees it; what it trains is the matter of `test_sudden`."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_schemas.exchange import Launch
from tests.workers.company import plane
from workers.member import Member
from workers.membership import Plan


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
