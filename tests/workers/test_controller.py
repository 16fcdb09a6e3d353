"""The workers of a job as Ray actors: what is made of what Ray says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from workers import controller
from workers.controller import _RayCrew
from workers.roll import WorkerGone


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
