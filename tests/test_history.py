"""A history that adds up, and each way in which one does not: on made-up events."""

from __future__ import annotations

from typing import Any

import pytest

from tests.history import lost_though_saved, untold_sizes

Event = dict[str, Any]


def started(workers: int, samples: int = 0) -> Event:
    return {"type": "started", "workers": workers, "samples": samples}


def resized(before: int, after: int, samples: int) -> Event:
    return {"type": "resized", "workers": (before, after), "samples": samples}


def rollback(to_samples: int) -> Event:
    return {"type": "rollback", "to_samples": to_samples}


def saved(samples: int) -> Event:
    return {"type": "checkpoint_saved", "samples": samples}


@pytest.mark.parametrize(
    ("events", "untold"),
    [
        ([], 0),
        ([started(1), resized(1, 3, 100), saved(150), resized(3, 2, 200)], 0),
        ([started(1), resized(2, 3, 100)], 1),
        ([started(1), resized(1, 3, 100), resized(2, 1, 200)], 1),
        ([started(1), resized(3, 2, 100), resized(1, 2, 200), resized(2, 1, 300)], 2),
    ],
    ids=["nothing", "whole", "after the start", "in between", "twice"],
)
def test_a_change_begins_at_the_size_told_before(events: list[Event], untold: int) -> None:
    assert untold_sizes(events) == untold


@pytest.mark.parametrize(
    "restored",
    [
        [rollback(60), resized(1, 2, 60)],
        [rollback(60), started(2, 60), resized(2, 1, 80)],
        [started(2, 100), resized(1, 2, 100)],
        [resized(1, 2, 100)],
    ],
    ids=["a rollback", "another incarnation", "a resume", "nobody trained at the last size"],
)
def test_a_restore_begins_at_the_size_of_its_checkpoint(restored: list[Event]) -> None:
    assert untold_sizes([started(1), resized(1, 3, 100), *restored]) == 0
    assert untold_sizes([started(1), resized(1, 3, 100), *restored, resized(3, 1, 120)]) == 1


def test_only_the_first_change_after_a_rollback_may_begin_elsewhere() -> None:
    assert untold_sizes([started(3), rollback(60), resized(1, 2, 60), resized(3, 1, 90)]) == 1
    assert untold_sizes([started(3), rollback(60), resized(1, 2, 80)]) == 1, "it is not the one that was restored"


@pytest.mark.parametrize(
    ("events", "lost"),
    [
        ([rollback(0)], 0),
        ([saved(100), rollback(100)], 0),
        ([saved(100), saved(200), rollback(200), saved(300), rollback(300)], 0),
        ([saved(100), rollback(150)], 0),
        ([saved(100), rollback(0)], 100),
        ([saved(100), saved(200), rollback(100)], 100),
        ([saved(200), rollback(150), saved(250), rollback(170)], 50 + 80),
        ([saved(200), rollback(150), rollback(140)], 50 + 10),
    ],
    ids=[
        "never saved",
        "to the last one",
        "again and again",
        "a later one was not told",
        "to the start",
        "to the one before",
        "twice",
        "further and further",
    ],
)
def test_a_rollback_ends_at_the_last_durable_checkpoint(events: list[Event], lost: int) -> None:
    assert lost_though_saved(events) == lost
