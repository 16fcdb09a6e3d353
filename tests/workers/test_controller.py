"""The workers of a job as Ray actors: what is made of what Ray says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from api_schemas.exchange import NAMESPACE, Launch, Predecessor
from service.conversation import Pace
from tests.workers.scribe import SPEC, Life, Worker
from workers import controller
from workers.controller import _RayCrew, recollect
from workers.roll import WorkerGone
from workers.storage import StorageError


def crew(*answers: Any) -> _RayCrew:
    """Of one worker, which answers so, one after the other, and then the last again and again."""
    made: Any = _RayCrew.__new__(_RayCrew)
    made._ranks = {"w0": SimpleNamespace(sever=SimpleNamespace(remote=said(answers)))}
    found: _RayCrew = made
    return found


def said(answers: Iterable[Any]) -> Any:
    left = list(answers)

    async def remote(*_: Any) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer

    return remote


AWAY = ActorUnavailableError("The actor is temporarily unavailable: RpcError", b"0" * 16)


def test_one_that_is_unavailable_for_a_moment_is_asked_again() -> None:
    asyncio.run(crew(AWAY, AWAY, None).sever("w0", 1))


@pytest.mark.parametrize(("answer", "reason"), [(AWAY, "cannot be reached"), (ActorDiedError(), "ended unexpectedly")])
def test_one_that_stays_away_is_gone(monkeypatch: pytest.MonkeyPatch, answer: Exception, reason: str) -> None:
    monkeypatch.setattr(controller, "UNAVAILABLE_S", 0.1)
    with pytest.raises(WorkerGone, match=reason):
        asyncio.run(crew(answer).sever("w0", 1))


def test_workers_of_another_incarnation_are_ended_not_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller before starts one in the moment in which it is killed: Ray lists it late."""
    names = ["rank:j:2:w10", "rank:j:1:w3", "rank:j:2:w9", "rank:k:2:w0", "controller:j"]
    ended: list[str] = []
    listed = [{"name": name, "namespace": NAMESPACE} for name in names]
    monkeypatch.setattr("ray.util.list_named_actors", lambda **_: listed)
    monkeypatch.setattr("ray.get_actor", lambda name, _: name)
    monkeypatch.setattr("ray.kill", lambda rank, **_: ended.append(rank))
    monkeypatch.setattr(controller, "is_alive", lambda _: True)
    launch = Launch(job="j", incarnation=2, spec=SPEC, storage="memory://")
    meeting: Any = SimpleNamespace(prepare=lambda: None)
    assert list(asyncio.run(_RayCrew(launch, meeting).adopt())) == ["w9", "w10"]
    assert ended == ["rank:j:1:w3"]


@pytest.fixture
def life() -> Life:
    """Of a controller that has told something."""
    made, worker = Life(), Worker()
    worker.enter(1)
    worker.train(8)
    worker.poll(made.chronicle)
    made.flush()
    return made


@pytest.mark.parametrize("incarnation", [1, 2], ids=["another life", "another incarnation"])
@pytest.mark.parametrize("refused", ["list", "read"])
def test_a_history_that_cannot_be_read_is_waited_for(life: Life, incarnation: int, refused: str) -> None:
    """Else Ray would take the controller for dead for good, and the next one end workers that train."""
    before = Predecessor(incarnation=1, acked=1, samples=0) if incarnation == 2 else None
    launch = Launch(job="j", incarnation=incarnation, spec=SPEC, storage="memory://", before=before)
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            life.shelf.refused = set()

    life.shelf.refused = {refused}
    _, chronicle = recollect(launch, life.shelf, pause)
    assert waits == [1.0, 2.0, 4.0]
    assert chronicle.committed == 8


def test_a_history_that_stays_out_of_reach_is_an_error_before_the_service_gives_up(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0.0

    def pause(wait_s: float) -> None:
        nonlocal seconds
        seconds += wait_s

    monkeypatch.setattr("workers.storage.time.monotonic", lambda: seconds)
    life.shelf.refused = {"list"}
    with pytest.raises(StorageError):
        recollect(Launch(job="j", incarnation=1, spec=SPEC, storage="memory://"), life.shelf, pause)
    assert 0 < seconds < Pace().silence - 10
