"""What a worker's event changes in its job: the columns, and the move of its phase. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from api_schemas import events
from api_schemas.wording import counted
from service.lifecycle import Happening

TRAINING = "training"
"""Code of a job that trains."""
ENDS = {
    "succeeded": Happening.SUCCEEDED,
    "failed": Happening.FAILED,
    "cancelled": Happening.CANCELLED,
    "paused": Happening.PAUSED,
}


class State(Protocol):
    """What of a job decides how an event changes it."""

    @property
    def samples(self) -> int: ...
    @property
    def values(self) -> dict[str, Any]: ...
    @property
    def artifacts(self) -> dict[str, str]: ...
    @property
    def evaluation(self) -> dict[str, Any] | None: ...
    @property
    def cancel_requested(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Columns of the job with their new values; and what moves its phase, with the reason that is shown."""

    changes: dict[str, Any] = field(default_factory=dict)
    happening: Happening | None = None
    code: str = ""
    message: str = ""


def fold(event: events.WorkerEvent, job: State) -> Folded:
    """What this event changes in the job as it is now; the events without a case change nothing."""
    match event:
        case events.Started():
            return _started(event)
        case events.Resizing():
            return Folded(happening=Happening.RESIZE_BEGAN, code=event.cause, message=event.reason)
        case events.Resized():
            return _resized(event)
        case events.RankLost():
            return Folded(happening=Happening.RANK_LOST, code="rank_lost", message=event.reason)
        case events.Committed():
            return Folded(changes={"samples": max(job.samples, event.stop), "progressed_at": event.at})
        case events.Metrics():
            return _metrics(event, job)
        case events.Evaluated():
            scores = event.model_dump(mode="json", include={"samples", "target", "ema"})
            return Folded(changes={"evaluation": scores})
        case events.Rollback():
            return _rollback(event, job)
        case events.Exported():
            return Folded(changes={"artifacts": job.artifacts | event.artifacts})
        case events.CheckpointFailed():
            message = f"The checkpoint could not be written, and is tried again: {event.message}"
            return Folded(happening=Happening.PAUSE_DELAYED, code="checkpoint_failed", message=message)
        case events.Finished():
            return _finished(event, job)
    return Folded()


def _started(event: events.Started) -> Folded:
    return Folded(
        changes={
            **event.model_dump(include={"workers", "kappa", "batch", "generation", "samples", "values"}),
            **event.model_dump(include={"epoch_size", "total_samples", "bn_momentum"}),
            **_new_leg(event.samples, event),
        },
        happening=Happening.STARTED,
        code=TRAINING,
        message=training_on(event.workers),
    )


def _resized(event: events.Resized) -> Folded:
    return Folded(
        changes={
            "workers": event.workers[1],
            "kappa": event.kappa[1],
            "batch": event.batch[1],
            "generation": event.generation,
            "values": event.after,
            **_new_leg(event.samples, event),
        },
        happening=Happening.RESIZED,
        code=TRAINING,
        message=training_on(event.workers[1]),
    )


def _metrics(event: events.Metrics, job: State) -> Folded:
    """A curve named as a value in force is that value's course; one named `noise_scale` is measured, null: infinite."""
    latest = {name: value for _, point in event.points for name, value in point.items() if is_finite(value)}
    changes: dict[str, Any] = {}
    if in_force := {name: value for name, value in latest.items() if name in job.values}:
        changes["values"] = job.values | in_force
    if measured := [point["noise_scale"] for _, point in event.points if "noise_scale" in point]:
        changes["noise_scale"] = measured[-1] if is_finite(measured[-1]) else math.inf
    return Folded(changes=changes)


def _rollback(event: events.Rollback, job: State) -> Folded:
    void = job.evaluation is not None and job.evaluation["samples"] > event.to_samples
    changes: dict[str, Any] = {"samples": event.to_samples} | _new_leg(event.to_samples, event)
    return Folded(changes=changes | ({"evaluation": None} if void else {}))


def _finished(event: events.Finished, job: State) -> Folded:
    changes = {"workers": 0, "traceback": event.traceback, "log_tail": event.log_tail}
    if event.outcome == "paused" and job.cancel_requested:  # since then
        message = "Cancelled on request, while it was being paused."
        return Folded(changes=changes, happening=Happening.CANCELLED, code="cancelled", message=message)
    return Folded(changes=changes, happening=ENDS[event.outcome], code=event.code, message=event.message)


def is_finite(value: float | None) -> bool:
    """Neither null nor a NaN or infinity, which JSON cannot say."""
    return value is not None and math.isfinite(value)


def _new_leg(samples: int, event: events.WorkerEvent) -> dict[str, Any]:
    """The rate is measured anew from here."""
    return {"leg_samples": samples, "leg_at": event.at, "progressed_at": event.at}


def training_on(workers: int) -> str:
    """What is said of a job that trains."""
    return f"Training on {counted(workers, 'worker')}."
