"""Real workers that hang, though they answer: the culprit is replaced, those who wait for it go on from memory."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.workers.company import BATCH, Plane, Theatre, perform, plane
from tests.workers.stage import allocation
from workers import stalls
from workers.group import Group

AT = 10 * BATCH
"""The sample at which it happens."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 4.0)


# How workers hang: in their own process


def hang(*_: object) -> None:
    threading.Event().wait()


def hang_in_loss(at: int) -> None:
    """Before the model is called, once."""
    loss = Plane.loss

    def hanging(self: Plane, model: nn.Module, batch: Any, step: Any) -> Any:
        if step.samples == at:
            hang()
        return loss(self, model, batch, step)

    Plane.loss = hanging  # type: ignore[method-assign]


def hang_in_backward(at: int) -> None:
    loss = Plane.loss

    def hanging(self: Plane, model: nn.Module, batch: Any, step: Any) -> Any:
        result = loss(self, model, batch, step)
        if step.samples == at:
            result.register_hook(hang)
        return result

    Plane.loss = hanging  # type: ignore[method-assign]


def hang_in_data(at: int) -> None:
    """A lock that nobody gives back."""
    from workers import feed

    fetch, fetched = feed.fetch, [0]

    def hanging(*args: Any) -> Any:
        fetched[0] += 1
        if fetched[0] == 1 + at // BATCH:
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        return fetch(*args)

    feed.fetch = hanging


def hang_with_the_lock(at: int) -> None:
    """Python's: nothing in the process answers any more."""
    loss = Plane.loss

    def hanging(self: Plane, model: nn.Module, batch: Any, step: Any) -> Any:
        if step.samples == at:
            import ctypes

            ctypes.PyDLL(None).pause()
        return loss(self, model, batch, step)

    Plane.loss = hanging  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("way", "victim"),
    [(hang_in_loss, "w0"), (hang_in_backward, "w2"), (hang_in_data, "w0"), (hang_with_the_lock, "w2")],
)
def test_one_that_hangs_is_replaced_and_nothing_is_lost(tmp_path: Path, way: Any, victim: str) -> None:
    replaced(tmp_path, victim, partial(way, AT))


@pytest.mark.parametrize("victim", ["w0", "w2"])
def test_one_that_hangs_where_the_others_wait_within_their_forward_is_replaced(tmp_path: Path, victim: str) -> None:
    """In a generation's second forward DDP agrees on the order of its buckets."""
    replaced(tmp_path, victim, partial(hang_in_loss, BATCH))


def replaced(folder: Path, victim: str, preparation: Any) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared[victim] = preparation
        theatre.allocation = allocation(3)
        await theatre.until(lambda: theatre.told("rank_lost"))
        await theatre.until(lambda: len(theatre.training()) == 3)
        await theatre.trains(*theatre.training())

    theatre = perform(script, folder)
    (lost,) = theatre.told("rank_lost")
    assert lost["reason"].startswith(f"Worker {victim} was lost: ")
    assert set(theatre.training()) == {"w0", "w1", "w2", "w3"} - {victim}
    assert theatre.told("rollback") == []
    assert theatre.told("resized")[0]["steps_lost"] == 0
    theatre.check_replicas()


def test_the_reason_says_where_it_hangs(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w1"] = partial(hang_in_loss, AT)
        theatre.allocation = allocation(2)
        await theatre.until(lambda: theatre.told("rank_lost"))

    (lost,) = perform(script, tmp_path).told("rank_lost")
    assert "in a step, at wait (threading.py:" in lost["reason"]
    assert "hang (test_hangs.py:" in lost["reason"]


def evaluate_slowly() -> None:
    evaluate = Plane.evaluate

    def slow(self: Plane, model: nn.Module) -> dict[str, float]:
        time.sleep(3.0)
        return evaluate(self, model)

    Plane.evaluate = slow  # type: ignore[method-assign]


def test_a_slow_evaluation_is_waited_for(tmp_path: Path) -> None:
    """Longer than a step may be without progress, by the lead; the others wait in their second forward."""
    spec = plane(evaluation={"every": "1 base_steps"}, ema={"momentum": 0.9})

    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w0"] = evaluate_slowly
        theatre.allocation = allocation(3)
        await theatre.until(lambda: len(theatre.told("evaluated")) >= 2)

    assert perform(script, tmp_path, spec).told("rank_lost") == []


def receive_from_each_other(at: int) -> None:
    """A vote in which everybody waits for the next one, and nobody for what comes."""
    vote, votes = Group.vote, [0]

    def stuck(self: Group, *ballot: Any) -> Any:
        votes[0] += 1
        if votes[0] == at:
            with self.guard():
                dist.recv(torch.zeros(1), (self.rank + 1) % self.world)
        return vote(self, *ballot)

    Group.vote = stuck  # type: ignore[method-assign]


def test_a_collective_that_never_ends_for_anybody_is_severed(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        for number in range(3):
            theatre.crew.prepared[f"w{number}"] = partial(receive_from_each_other, 10)
        theatre.allocation = allocation(3)
        await theatre.until(lambda: theatre.told("resized"))
        await theatre.trains("w0", "w1", "w2")

    theatre = perform(script, tmp_path)
    assert [event["code"] for event in theatre.told("warning")] == ["stalled"]
    assert theatre.told("rank_lost") == []
    assert theatre.told("resized")[0]["cause"] == "stalled"
    theatre.check_replicas()


def test_one_that_hangs_in_its_warm_up_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stalls.ALLOWED, stalls.Activity.WARM_UP, 1.0)

    async def script(theatre: Theatre) -> None:
        theatre.crew.prepared["w1"] = hang_in_model
        theatre.allocation = allocation(2)
        await theatre.trains("w0", "w2")

    assert "in its warm-up" in perform(script, tmp_path).told("rank_lost")[0]["reason"]


def hang_in_model() -> None:
    Plane.model = hang  # type: ignore[assignment]
