"""What a report leaves in the tables; and that it does not matter how often, or in what portions, it comes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect
from sqlmodel import col, select

from api_schemas.exchange import Report
from api_schemas.views import Phase
from service import events
from service.db import Database, lock
from service.events import Stale
from service.lifecycle import Happening
from service.tables import EventRow, Job, LedgerRow, MetricRow, ResizeRow
from tests.service.world import START, Controller, committed, finished, metrics, resized, started

_ids = count(1)


def new_job(database: Database) -> str:
    now = database.now()
    job = Job(
        id=f"j{next(_ids)}",
        name="n",
        recipe="r",
        spec={},
        labels={},
        priority=0,
        storage="s",
        since=now,
        code="c",
        message="m",
        created_at=now,
        updated_at=now,
    )
    with database.writing() as session:
        session.add(job)
        events.submitted(session, job, now)
    return job.id


@pytest.fixture
def controller(database: Database) -> Controller:
    return Controller.launch(database, new_job(database))


def job_of(controller: Controller) -> Job:
    with controller.database.reading() as session:
        return session.get_one(Job, controller.job)


def ledger_of(controller: Controller) -> list[tuple[int, int, int]]:
    with controller.database.reading() as session:
        rows = session.exec(select(LedgerRow).where(LedgerRow.job_id == controller.job).order_by(col(LedgerRow.start)))
        return [(row.start, row.stop, row.generation) for row in rows]


def curve_of(controller: Controller, name: str = "loss") -> dict[int, float | None]:
    with controller.database.reading() as session:
        rows = session.exec(select(MetricRow).where(MetricRow.job_id == controller.job, MetricRow.name == name))
        return {row.samples: row.value for row in rows}


def listed(controller: Controller) -> list[str]:
    with controller.database.reading() as session:
        return [row.type for row in events.since(session, controller.job, 0, 1000)]


def test_started_sets_what_trains(controller: Controller) -> None:
    controller.report(started(bn_momentum=0.1))
    job = job_of(controller)
    assert (job.workers, job.kappa, job.batch, job.generation) == (2, 2.0, 128, 1)
    assert (job.epoch_size, job.total_samples, job.bn_momentum) == (1000, 5000, 0.1)
    assert job.values == {"lr": 0.1, "betas": [0.9, 0.99]}
    assert (job.phase, job.code, job.message) == (Phase.RUNNING, "training", "Training on 2 workers.")
    assert job.acked == 1


def test_events_are_listed_with_the_phases_that_they_cause(controller: Controller) -> None:
    controller.report(
        started(), {"type": "resizing", "workers": (2, 3), "cause": "api", "reason": "asked"}, resized(0, (2, 3))
    )
    assert listed(controller) == ["submitted", "phase", "started", "phase", "resizing", "phase", "resized", "phase"]
    with controller.database.reading() as session:
        rows = events.since(session, controller.job, 0, 100)
    assert [row.sequence for row in rows if row.incarnation == 0] == [1, 2, 3, 4, 5]
    assert [row.payload["phase"] for row in rows if row.type == "phase"] == [
        "starting",
        "running",
        "resizing",
        "running",
    ]


def test_ranges_that_touch_become_one_within_a_generation(controller: Controller) -> None:
    controller.report(started(), committed(0, 64), committed(64, 128))
    controller.report(committed(128, 192))
    controller.generation = 2
    controller.report(committed(192, 256))
    assert ledger_of(controller) == [(0, 192, 1), (192, 256, 2)]
    assert job_of(controller).samples == 256


def test_commits_and_curves_are_not_listed(controller: Controller) -> None:
    controller.report(committed(0, 64), metrics((64, {"loss": 1.0})))
    assert listed(controller) == ["submitted", "phase"]


def test_a_value_that_is_not_finite_is_null(controller: Controller) -> None:
    controller.report(
        metrics((1, {"loss": math.nan}), (2, {"loss": math.inf}), (3, {"loss": 0.5}), (4, {"loss": None}))
    )
    assert curve_of(controller) == {1: None, 2: None, 3: 0.5, 4: None}


def test_a_name_that_is_too_long_for_its_column_is_cut(controller: Controller) -> None:
    controller.report(metrics((1, {"x" * 201: 0.5, "x" * 300: 0.7})))
    assert curve_of(controller, "x" * 200) == {1: 0.7}


def test_values_in_force_follow_their_curves(controller: Controller) -> None:
    controller.report(started(), metrics((64, {"lr": 0.05, "loss": 1.0, "noise_scale": 300.0})))
    job = job_of(controller)
    assert job.values == {"lr": 0.05, "betas": [0.9, 0.99]}
    assert job.noise_scale == 300.0


def test_evaluations_are_curves_too(controller: Controller) -> None:
    controller.report({"type": "evaluated", "samples": 64, "target": {"accuracy": 0.5}, "ema": {"accuracy": 0.6}})
    assert job_of(controller).evaluation == {"samples": 64, "target": {"accuracy": 0.5}, "ema": {"accuracy": 0.6}}
    assert curve_of(controller, "evaluation/target/accuracy") == {64: 0.5}
    assert curve_of(controller, "evaluation/ema/accuracy") == {64: 0.6}


def test_resizes_are_numbered_within_the_job(controller: Controller) -> None:
    controller.report(started(), resized(64, (2, 3)), resized(128, (3, 1)))
    controller.report(resized(256, (1, 2)))
    with controller.database.reading() as session:
        rows = session.exec(select(ResizeRow).where(ResizeRow.job_id == controller.job)).all()
    assert [(row.id, row.samples, row.payload["workers"]) for row in rows] == [
        (1, 64, [2, 3]),
        (2, 128, [3, 1]),
        (3, 256, [1, 2]),
    ]
    assert job_of(controller).workers == 2


def test_a_rollback_voids_what_came_after(controller: Controller) -> None:
    controller.report(
        started(),
        committed(0, 64),
        committed(64, 192),
        metrics((64, {"loss": 3.0}), (128, {"loss": 2.0}), (192, {"loss": 1.0})),
        {"type": "evaluated", "samples": 192, "target": {"accuracy": 0.5}, "ema": None},
    )
    controller.generation = 2
    controller.report({"type": "rollback", "to_samples": 128}, committed(128, 256), metrics((192, {"loss": 1.5})))
    assert ledger_of(controller) == [(0, 128, 1), (128, 256, 2)]
    assert curve_of(controller) == {64: 3.0, 128: 2.0, 192: 1.5}
    job = job_of(controller)
    assert (job.samples, job.evaluation) == (256, None)


def test_a_rollback_within_one_report_voids_what_came_before_it(controller: Controller) -> None:
    controller.report(
        committed(0, 192),
        metrics((192, {"loss": 1.0})),
        {"type": "rollback", "to_samples": 64},
        committed(64, 128),
        metrics((128, {"loss": 2.0})),
    )
    assert ledger_of(controller) == [(0, 128, 1)]
    assert curve_of(controller) == {128: 2.0}


def test_an_evaluation_before_the_rollback_stays(controller: Controller) -> None:
    controller.report(
        {"type": "evaluated", "samples": 64, "target": {"accuracy": 0.5}, "ema": None},
        {"type": "rollback", "to_samples": 64},
    )
    assert job_of(controller).evaluation == {"samples": 64, "target": {"accuracy": 0.5}, "ema": None}


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "cancelled"])
def test_finished_ends_the_job(controller: Controller, outcome: str) -> None:
    controller.report(
        started(),
        {"type": "exported", "artifacts": {"ema": "file:///ema"}},
        finished(outcome, code="why", message="Because.", traceback="Traceback", log_tail=["last"]),
    )
    job = job_of(controller)
    assert (job.phase, job.code, job.message) == (outcome, "why", "Because.")
    assert (job.traceback, job.log_tail, job.workers) == ("Traceback", ["last"], 0)
    assert job.artifacts == {"ema": "file:///ema"}


def test_a_lost_rank_is_recovered_from(controller: Controller) -> None:
    controller.report(started(), {"type": "rank_lost", "rank": 1, "reason": "The node is gone."})
    job = job_of(controller)
    assert (job.phase, job.code, job.message) == (Phase.RECOVERING, "rank_lost", "The node is gone.")
    controller.report(resized(0, (2, 1)))
    assert job_of(controller).phase is Phase.RUNNING


def test_a_cancelled_job_stays_cancelling_whatever_is_reported(controller: Controller) -> None:
    controller.report(started())
    with controller.database.writing() as session:
        job = lock(session, Job, controller.job)
        assert job is not None
        assert events.move(session, job, Happening.CANCEL_REQUESTED, "cancel_requested", "Stop.", START)
    controller.report(resized(0, (2, 1)), {"type": "rank_lost", "rank": 1, "reason": "gone"})
    assert job_of(controller).phase is Phase.CANCELLING


def test_another_incarnation_is_refused_and_nothing_of_it_taken(controller: Controller) -> None:
    old = controller.message([controller.event(started())])
    new = Controller.launch(controller.database, controller.job)
    with pytest.raises(Stale):
        controller.send(old)
    ahead = Controller(controller.database, controller.job, incarnation=3)
    with pytest.raises(Stale):
        ahead.report(started())
    assert "started" not in listed(controller)
    new.report(started())
    assert job_of(controller).acked == 1


def test_a_gap_is_waited_for(controller: Controller) -> None:
    first, second, third = (controller.event(committed(at, at + 64)) for at in (0, 64, 128))
    controller.send(controller.message([first, third]))
    assert (job_of(controller).acked, ledger_of(controller)) == (1, [(0, 64, 1)])
    controller.send(controller.message([second, third]))
    assert (job_of(controller).acked, ledger_of(controller)) == (3, [(0, 192, 1)])


def test_a_report_without_news_leaves_the_revision(controller: Controller) -> None:
    report = controller.report(started(), committed(0, 64))
    before = job_of(controller)
    controller.send(report)
    controller.send(controller.message([]))
    after = job_of(controller)
    assert (after.revision, after.updated_at) == (before.revision, before.updated_at)


def test_thousands_of_events_are_taken_at_once(controller: Controller) -> None:
    bodies = [
        body
        for at in range(0, 64_000, 64)
        for body in (committed(at, at + 64), metrics((at + 64, {"loss": 1.0, "lr": 0.1})))
    ]
    controller.report(started(), *bodies)
    assert ledger_of(controller) == [(0, 64_000, 1)]
    assert len(curve_of(controller)) == 1000


def lives() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Events as a controller may write them: commits, curves, evaluations, resizes, losses and rollbacks."""
    step = st.sampled_from(["commit", "metrics", "evaluate", "resize", "lost", "rollback", "checkpoint"])
    return st.lists(st.tuples(step, st.integers(0, 100)), max_size=25).map(lambda steps: list(_life(steps)))


def _life(steps: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    yield started()
    samples = 0
    for step, number in steps:
        if step == "commit":
            yield committed(samples, samples + 64)
            samples += 64
        elif step == "metrics":
            yield metrics((samples, {"loss": float(number), "lr": number / 100}))
        elif step == "evaluate":
            yield {"type": "evaluated", "samples": samples, "target": {"accuracy": number / 100}, "ema": None}
        elif step == "resize":
            yield resized(samples, (2, 1 + number % 4), generation=2 + number)
        elif step == "lost":
            yield {"type": "rank_lost", "rank": 0, "reason": "gone"}
        elif step == "checkpoint":
            yield {"type": "checkpoint_saved", "samples": samples, "name": f"{samples:015d}", "bytes": number}
        else:
            samples = min(samples, 64 * (number % 8))
            yield {"type": "rollback", "to_samples": samples}


def tables(controller: Controller) -> dict[str, Any]:
    """Everything stored about the job, but for its id and how often it was touched."""
    with controller.database.reading() as session:
        stored = {
            table.__name__: [
                row.model_dump()
                for row in session.exec(
                    select(table).where(table.job_id == controller.job).order_by(*inspect(table).primary_key)
                )
            ]
            for table in (EventRow, LedgerRow, MetricRow, ResizeRow)
        }
        job = session.get_one(Job, controller.job).model_dump()
    for rows in stored.values():
        for row in rows:
            row.pop("job_id")
            row.get("payload", {}).pop("job", None)
    for name in ("EventRow", "LedgerRow"):
        stored[name] = [{key: value for key, value in row.items() if key != "id"} for row in stored[name]]
    return {**stored, "job": {key: value for key, value in job.items() if key not in ("id", "revision")}}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), life=lives())
def test_any_portions_and_repetitions_leave_the_same_tables(
    database: Database, data: st.DataObject, life: list[dict[str, Any]]
) -> None:
    once, often = (Controller.launch(database, new_job(database)) for _ in range(2))
    once.report(*life)
    report = often.message([often.event(body) for body in life])
    ends = st.integers(0, len(life))
    for start, stop in data.draw(st.lists(st.tuples(ends, ends), max_size=6)):
        _send(often, report, start, stop)
    _send(often, report, 0, len(life))
    _send(often, report, *sorted(data.draw(st.tuples(ends, ends))))
    assert tables(often) == tables(once)


def _send(controller: Controller, report: Report, start: int, stop: int) -> None:
    controller.send(report.model_copy(update={"events": report.events[start:stop]}))
