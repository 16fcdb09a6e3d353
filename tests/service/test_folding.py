"""What a single event changes in its job, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from api_schemas.events import WorkerEvent
from service.folding import Folded, fold
from service.lifecycle import Happening
from service.tables import Job
from tests.service.world import START, committed, finished, metrics, resized, started

NUMBERS = st.floats() | st.none()


def job(**columns: Any) -> Job:
    return Job(**{"id": "j", "samples": 640, "values": {"lr": 0.1, "eps": 1e-8}, "artifacts": {}} | columns)


def folded(body: dict[str, Any], **columns: Any) -> Folded:
    whose = {"job": "j", "incarnation": 1, "generation": 2, "sequence": 1, "at": START}
    event: WorkerEvent = TypeAdapter(WorkerEvent).validate_python(whose | body)
    return fold(event, job(**columns))


@pytest.mark.parametrize(
    ("body", "happening", "code", "message"),
    [
        (started(), Happening.STARTED, "training", "Training on 2 workers."),
        (started(workers=1), Happening.STARTED, "training", "Training on 1 worker."),
        (resized(64, (2, 3)), Happening.RESIZED, "training", "Training on 3 workers."),
        (resized(64, (2, 1)), Happening.RESIZED, "training", "Training on 1 worker."),
        (
            {"type": "resizing", "workers": (2, 3), "cause": "allocator", "reason": "There is room."},
            Happening.RESIZE_BEGAN,
            "allocator",
            "There is room.",
        ),
        ({"type": "rank_lost", "rank": 1, "reason": "Gone."}, Happening.RANK_LOST, "rank_lost", "Gone."),
        (
            {"type": "checkpoint_failed", "samples": 64, "message": "Full."},
            Happening.PAUSE_DELAYED,  # which moves nothing but a job that is being paused
            "checkpoint_failed",
            "The checkpoint could not be written, and is tried again: Full.",
        ),
        (finished("succeeded"), Happening.SUCCEEDED, "succeeded", "It has succeeded."),
        (finished("cancelled"), Happening.CANCELLED, "cancelled", "It has cancelled."),
        (finished("failed", code="oom", message="Too big."), Happening.FAILED, "oom", "Too big."),
    ],
)
def test_what_moves_a_job_says_why(body: dict[str, Any], happening: Happening, code: str, message: str) -> None:
    found = folded(body)
    assert (found.happening, found.code, found.message) == (happening, code, message)


@pytest.mark.parametrize(
    "body",
    [
        committed(640, 704),
        metrics((64, {"loss": 1.0})),
        {"type": "evaluated", "samples": 64, "target": {}, "ema": None},
        {"type": "rollback", "to_samples": 0},
        {"type": "exported", "artifacts": {"ema": "/e"}},
        {"type": "joining", "workers": 1},
        {"type": "checkpoint_saved", "samples": 64, "name": "64", "bytes": 1},
        {"type": "warning", "code": "slow", "message": "Slow."},
    ],
)
def test_the_others_move_nothing(body: dict[str, Any]) -> None:
    assert folded(body).happening is None


@pytest.mark.parametrize(
    "body",
    [
        {"type": "joining", "workers": 1},
        {"type": "checkpoint_saved", "samples": 64, "name": "64", "bytes": 1},
        {"type": "warning", "code": "slow", "message": "Slow."},
        {"type": "rank_lost", "rank": 1, "reason": "Gone."},
        metrics((64, {"loss": 1.0})),
        metrics(),
    ],
)
def test_what_is_only_told_changes_no_column(body: dict[str, Any]) -> None:
    assert folded(body).changes == {}


@given(samples=st.integers(0, 10**12), start=st.integers(0, 10**12), length=st.integers(1, 10**6))
def test_a_commit_never_takes_progress_back(samples: int, start: int, length: int) -> None:
    changes = folded(committed(start, start + length), samples=samples).changes
    assert changes["samples"] == max(samples, start + length)


def test_a_rollback_does() -> None:
    changes = folded({"type": "rollback", "to_samples": 64}, samples=640).changes
    assert (changes["samples"], changes["leg_samples"]) == (64, 64)


@pytest.mark.parametrize(("scored_at", "void"), [(63, False), (64, False), (65, True)])
def test_a_rollback_voids_the_scores_beyond_it(scored_at: int, void: bool) -> None:
    evaluation = {"samples": scored_at, "target": {}, "ema": None}
    changes = folded({"type": "rollback", "to_samples": 64}, evaluation=evaluation).changes
    assert ("evaluation" in changes) is void
    assert changes.get("evaluation") is None


@given(points=st.lists(st.dictionaries(st.sampled_from(["lr", "eps", "loss"]), NUMBERS), max_size=5))
def test_a_value_in_force_is_the_last_finite_point_of_its_curve(points: list[dict[str, float | None]]) -> None:
    before = {"lr": 0.1, "eps": 1e-8}
    after = folded(metrics(*enumerate(points)), values=before).changes.get("values", before)
    assert after.keys() == before.keys()
    for name, value in after.items():
        course = [point[name] for point in points if name in point]
        finite = [each for each in course if each is not None and math.isfinite(each)]
        assert value == [before[name], *finite][-1]


def test_a_measured_noise_scale_is_kept_until_the_next() -> None:
    assert folded(metrics((64, {"noise_scale": 100.0}), (128, {"noise_scale": 200.0}))).changes == {
        "noise_scale": 200.0
    }
    assert folded(metrics((64, {"loss": 1.0}))).changes == {}


def test_a_noise_scale_that_is_null_was_measured_to_be_infinite() -> None:
    points = [(64, {"noise_scale": 100.0}), (128, {"noise_scale": None}), (192, {"loss": 1.0})]
    assert folded(metrics(*points)).changes == {"noise_scale": math.inf}


def test_exports_are_added_to_those_before() -> None:
    changes = folded(
        {"type": "exported", "artifacts": {"ema": "/e2"}}, artifacts={"ema": "/e1", "target": "/t"}
    ).changes
    assert changes == {"artifacts": {"ema": "/e2", "target": "/t"}}


def test_an_end_leaves_no_workers() -> None:
    changes = folded(finished("failed", traceback="Traceback", log_tail=["last"]), workers=3).changes
    assert changes == {"workers": 0, "traceback": "Traceback", "log_tail": ["last"]}


@pytest.mark.parametrize("body", [started(samples=640), resized(640, (2, 3)), {"type": "rollback", "to_samples": 640}])
def test_the_rate_is_measured_anew_where_the_size_or_the_place_changes(body: dict[str, Any]) -> None:
    changes = folded(body).changes
    assert (changes["leg_samples"], changes["leg_at"], changes["progressed_at"]) == (640, START, START)
