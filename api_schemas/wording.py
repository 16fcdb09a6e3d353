"""Events and numbers as a person reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api_schemas import events
from api_schemas.events import Event
from api_schemas.views import JobView, Progress

SHOWN = {"lr": "lr", "ema_momentum": "rho"}
"""The hyperparameters worth a place in one line, and what they are called there."""


def describe(event: Event) -> str | None:
    """The event as a sentence; None for those that are only numbers."""
    match event:
        case events.Submitted():
            return "submitted"
        case events.PhaseChanged():
            return f"{event.phase}: {event.message}"
        case events.ResizeRequested():
            when = "" if event.at_samples is None else f" from sample {event.at_samples} on"
            return f"asked for {workers(event.workers)}{when}"
        case events.Joining():
            return f"{workers(event.workers)} warming up while the others train"
        case events.Started():
            return f"training on {workers(event.workers)}: batch {event.batch}, kappa {number(event.kappa)}"
        case events.Resizing():
            return f"{event.workers[0]} -> {workers(event.workers[1])} announced: {event.reason}"
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


def state(view: JobView, loss: float | None) -> str:
    """Where a job stands, in one line."""
    parts = [f"{share(view.progress):4.0%}", f"loss {number(loss)}", f"kappa {number(view.kappa)}"]
    parts += [f"{label} {number(view.values[name])}" for name, label in SHOWN.items() if name in view.values]
    return ", ".join([*parts, workers(view.workers)])


def share(progress: Progress) -> float:
    """How much of the training is done, from 0 to 1."""
    return min(1.0, progress.samples / progress.total_samples) if progress.total_samples else 0.0


def scores(target: Mapping[str, float | None], ema: Mapping[str, float | None] | None) -> str:
    """Scores of the weights and of their average, side by side."""
    parts = [f"{name} {number(score)}" for name, score in target.items()]
    parts += [f"{name} of the EMA {number(score)}" for name, score in (ema or {}).items()]
    return ", ".join(parts)


def workers(count: int) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} worker{'' if count == 1 else 's'}"


def number(value: Any) -> str:
    """Floats to four digits, lists by element, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(number(element) for element in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _resized(event: events.Resized) -> str:
    moves = [f"{event.workers[0]} -> {workers(event.workers[1])}"]
    moves.append(f"kappa {number(event.kappa[0])} -> {number(event.kappa[1])}")
    for name, label in SHOWN.items():
        if name in event.before and name in event.after:
            moves.append(f"{label} {number(event.before[name])} -> {number(event.after[name])}")
    lost = f"{event.steps_lost} step{'' if event.steps_lost == 1 else 's'} lost"
    return f"{', '.join(moves)}; paused {event.pause_s:.2f} s, {lost}"
