"""Workers without a controller: they train on for a while, leave a checkpoint of their last step behind, and end."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.workers.company import BATCH, Theatre, perform
from tests.workers.stage import allocation
from workers.checkpoint import checkpoint_name
from workers.lease import Lease
from workers.member import Member
from workers.status import Status
from workers.storage import Storage


class Tenant:
    """`stubborn`: it never comes to an end."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.is_over = False
        self.retired = threading.Event()

    def retire(self) -> None:
        self.is_over = not self.stubborn
        self.retired.set()


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_lease_that_nobody_renews_ends_the_process_in_any_case(stubborn: bool) -> None:
    tenant, ended = Tenant(stubborn=stubborn), SimpleQueue[str]()
    Lease(tenant, ended.put, lease_s=0.2, grace_s=0.3).start()
    assert ended.get(timeout=10) == "No controller has asked for 0.2 s; this worker ends."
    assert tenant.retired.is_set()


def test_a_lease_that_is_renewed_goes_on() -> None:
    tenant = Tenant()
    lease = Lease(tenant, lambda _: None, lease_s=0.5, grace_s=0.3)
    lease.start()
    for _ in range(20):
        lease.renew()
        assert not tenant.retired.wait(0.05)
    assert tenant.retired.wait(10)


# -- real workers ------------------------------------------------------------------------------------------------------


def leased(lease_s: float) -> None:
    """As `workers.rank` does it."""
    start, poll, leases = Member.start, Member.poll, []

    def started(self: Member) -> None:
        leases.append(Lease(self, lambda _: os._exit(1), lease_s=lease_s, grace_s=60.0))
        leases[0].start()
        start(self)

    def polled(self: Member, **cursors: Any) -> Status:
        leases[0].renew()
        return poll(self, **cursors)

    Member.start = started  # type: ignore[method-assign]
    Member.poll = polled  # type: ignore[method-assign]


@pytest.mark.parametrize("workers", [1, 3])
def test_without_a_controller_nothing_that_was_trained_is_lost(tmp_path: Path, workers: int) -> None:
    """The whole generation ends with one checkpoint, though the leases do not end at one moment."""
    reached = []

    async def script(theatre: Theatre) -> None:
        for number in range(workers):
            theatre.crew.prepared[f"w{number}"] = partial(leased, 4.0 + number)
        theatre.allocation = allocation(workers)
        await theatre.trains(*(f"w{number}" for number in range(workers)))
        await theatre.die()
        async with asyncio.timeout(theatre.patience_s):
            while theatre.crew.living:
                await asyncio.sleep(0.05)
        reached.append(max(theatre.steps()))
        names = {Path(key).parts[1] for key in Storage(theatre.launch.storage).list("checkpoints")}
        assert names == {checkpoint_name(reached[0])}
        theatre.begin()
        await theatre.until(lambda: len(theatre.training()) == workers)
        await theatre.trains(*theatre.training())

    theatre = perform(script, tmp_path)
    assert theatre.told("rollback") == []
    (resized,) = theatre.told("resized")
    assert (resized["samples"], resized["samples_lost"]) == (reached[0], 0)
    assert reached[0] >= 5 * BATCH
    theatre.check_replicas()


def test_one_that_is_in_no_generation_just_ends(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w0"] = partial(leased, 1.0)
        await theatre.crew.start("w0")
        async with asyncio.timeout(theatre.patience_s):
            while theatre.crew.living:
                await asyncio.sleep(0.05)

    perform(script, tmp_path)
