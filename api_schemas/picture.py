"""What is known of a job from its events alone, and each event as a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from api_schemas import events
from api_schemas.events import Event
from api_schemas.views import Phase, Values

SHOWN = {"lr": "lr", "ema_momentum": "rho"}
"""The hyperparameters worth a place in one line, and what they are called there."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A job as it is after the events heard so far."""

    name: str
    phase: Phase = Phase.QUEUED
    message: str = ""
    workers: int = 0
    kappa: float | None = None
    samples: int = 0
    total_samples: int | None = None
    loss: float | None = None
    values: Values = field(default_factory=dict)

    def after(self, event: Event) -> Picture:
        """The job once this happened too."""
        match event:
            case events.PhaseChanged():
                return replace(self, phase=event.phase, message=event.message)
            case events.Started():
                seen = event.model_dump(include={"workers", "kappa", "samples", "total_samples", "values"})
                return replace(self, **seen)
            case events.Resized():
                return replace(self, workers=event.workers[1], kappa=event.kappa[1], values=event.after)
            case events.Committed():
                return replace(self, samples=max(self.samples, event.stop))
            case events.Rollback():
                return replace(self, samples=event.to_samples)
            case events.Metrics():
                return self._measured(event)
            case events.Finished():
                return replace(self, workers=0)
        return self

    def _measured(self, event: events.Metrics) -> Picture:
        """A curve that is named as a value in force is that value's course."""
        latest = {name: value for _, point in event.points for name, value in point.items() if value is not None}
        moved = {name: value for name, value in latest.items() if name in self.values}
        return replace(self, loss=latest.get("loss", self.loss), values=self.values | moved)

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1."""
        return min(1.0, self.samples / self.total_samples) if self.total_samples else 0.0

    def sentence(self) -> str:
        """The state in one line."""
        parts = [f"{self.share:4.0%}", f"loss {number(self.loss)}", f"kappa {number(self.kappa)}"]
        parts += [f"{label} {number(self.values[name])}" for name, label in SHOWN.items() if name in self.values]
        return ", ".join([*parts, f"{self.workers} workers"])


def describe(event: Event) -> str | None:
    """The event as a sentence; None for those that are only numbers."""
    match event:
        case events.Submitted():
            return "submitted"
        case events.PhaseChanged():
            return f"{event.phase}: {event.message}"
        case events.ResizeRequested():
            when = "" if event.at_samples is None else f" from sample {event.at_samples} on"
            return f"asked for {event.workers} workers{when}"
        case events.Joining():
            return f"{event.workers} workers warm up while the others train"
        case events.Started():
            return f"training on {event.workers} workers: batch {event.batch}, kappa {number(event.kappa)}"
        case events.Resizing():
            return f"{event.workers[0]} -> {event.workers[1]} workers announced: {event.reason}"
        case events.Resized():
            return _resized(event)
        case events.RankLost():
            return f"worker {event.rank} is lost: {event.reason}"
        case events.Evaluated():
            return f"evaluation after {event.samples} samples: {scores(event.target, event.ema)}"
        case events.CheckpointSaved():
            return f"checkpoint {event.name} is durable"
        case events.CheckpointFailed():
            return f"a checkpoint could not be written: {event.message}"
        case events.Rollback():
            return f"back to the checkpoint at sample {event.to_samples}"
        case events.Exported():
            return f"exported: {', '.join(sorted(event.artifacts))}"
        case events.Warned():
            return f"warning {event.code}: {event.message}"
    return None


def _resized(event: events.Resized) -> str:
    moves = [f"{event.workers[0]} -> {event.workers[1]} workers"]
    moves.append(f"kappa {number(event.kappa[0])} -> {number(event.kappa[1])}")
    for name, label in SHOWN.items():
        if name in event.before and name in event.after:
            moves.append(f"{label} {number(event.before[name])} -> {number(event.after[name])}")
    return f"{', '.join(moves)}; paused {event.pause_s:.2f} s, {event.steps_lost} steps lost"


def scores(target: Mapping[str, float | None], ema: Mapping[str, float | None] | None) -> str:
    """Scores of the weights and of their average, side by side."""
    parts = [f"{name} {number(score)}" for name, score in target.items()]
    parts += [f"{name} of the EMA {number(score)}" for name, score in (ema or {}).items()]
    return ", ".join(parts)


def number(value: Any) -> str:
    """A value as a person reads it: floats to four digits, lists by element, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(number(element) for element in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
