"""The chaos benchmark counts as faults what was one: no size asked for, and two workers only where two were killed."""

from __future__ import annotations

import os
import random
from typing import Any
from unittest.mock import Mock

import pytest

from tests.benchmarks.chaos import Chaos


class Still(random.Random):
    """Always the kind that is `wanted`."""

    wanted = ""

    def choices(self, *_: Any, **__: Any) -> list[str]:  # type: ignore[override]
        return [self.wanted]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes that were, but for the signal."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    return killed


def strike(kind: str, *processes: int) -> Chaos:
    """Once, at a job of these processes."""
    chance, job = Still(0), Mock()
    chance.wanted = kind
    job.processes.return_value = {f"w{number}": process for number, process in enumerate(processes)}
    chaos = Chaos(Mock(), [job], Mock(), chance)
    chaos.strike()
    return chaos


@pytest.mark.parametrize(
    ("kind", "processes", "deaths"),
    [
        ("kill_worker", [1], 1),
        ("kill_worker", [1, 2, 3], 1),
        ("kill_workers", [1, 2], 2),
        ("kill_workers", [1, 2, 3], 2),
        ("kill_all_workers", [1, 2, 3], 3),
    ],
)
def test_a_fault_counts_once(killed: list[int], kind: str, processes: list[int], deaths: int) -> None:
    chaos = strike(kind, *processes)
    assert len(set(killed)) == deaths
    assert (chaos.faults, chaos.done) == (1, {kind: 1})


@pytest.mark.parametrize(
    ("kind", "processes"), [("kill_workers", [1]), ("kill_workers", []), ("kill_worker", []), ("kill_all_workers", [])]
)
def test_where_too_few_live_nobody_is_killed_and_nothing_counted(
    killed: list[int], kind: str, processes: list[int]
) -> None:
    chaos = strike(kind, *processes)
    assert killed == []
    assert (chaos.faults, chaos.done) == (0, {})


def test_a_size_that_is_asked_for_is_no_fault() -> None:
    chaos = strike("resize", 1)
    assert (chaos.faults, chaos.done) == (0, {"resize": 1})
