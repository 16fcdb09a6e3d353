"""Events and numbers as a person reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from api_schemas import events
from api_schemas.events import Event
from api_schemas.views import JobView, Phase, Progress

SHOWN = {"lr": "lr", "ema_momentum": "rho"}
"""The hyperparameters worth a place in one line, and what they are called there."""

LOST = "rank_lost"
"""Cause and code of what follows when a worker is lost."""

MEANING = {
    "decay_out_of_range": "a decay would leave its range",
    "rule_undefined": "no rule covers this optimizer",
    "rectification_lost": "RAdam would never rectify, and run as plain SGD; lower kappa, or choose adam",
    "step_coarse": "the step is above a quarter of the stability bound",
    "past_noise_scale": "the batch exceeds the gradient's noise scale, so more workers save few steps",
    "v_few_samples": "the second moment averages over very few steps",
    "momentum_lost": "one step spans the momentum's memory, little of it is left",
    "ema_coarse": "one step spans the EMA's memory, so it hugs the weights",
    "bn_coarse": "one step spans BatchNorm's memory, so its statistics are those of the last batches",
}
"""What the codes of the scaling rules mean."""


def describe(event: Event) -> str | None:
    """The event as a sentence; None for those that are only numbers, or told by another."""
    match event:
        case events.Submitted():
            return "submitted"
        case events.PhaseChanged():
            told = event.phase in (Phase.RUNNING, Phase.RESIZING) or event.code == LOST  # by the events that lead there
            return None if told else f"{event.phase}: {event.message}"
        case events.ResizeRequested():
            return _asked(event)
        case events.Updated():
            return "; ".join(f"{name} {_setting(old)} -> {_setting(new)}" for name, (old, new) in event.changes.items())
        case events.Joining():
            return f"{workers(event.workers)} warming up while the others train"
        case events.Started():
            return f"training on {workers(event.workers)}: batch {event.batch}, kappa {number(event.kappa)}"
        case events.Resizing():
            why = "" if event.cause == LOST else f": {event.reason}"  # that a worker is lost was just told
            return f"{event.workers[0]} -> {workers(event.workers[1])} announced{why}"
        case events.Resized():
            return _resized(event)
        case events.RankLost():
            return event.reason
        case events.Evaluated():
            return f"evaluation after {event.samples} samples: {scores(event.target, event.ema)}"
        case events.CheckpointSaved():
            return f"checkpoint {event.name} is durable"
        case events.CheckpointFailed():
            return f"a checkpoint could not be written: {event.message}"
        case events.Rollback():
            return _rolled_back(event)
        case events.Exported():
            return f"exported: {', '.join(sorted(event.artifacts))}"
        case events.Warned():
            return f"warning {event.code}: {event.message}"
    return None


def state(view: JobView, loss: float | None) -> str:
    """Where a job stands, in one line."""
    parts = [f"{percent(view.progress):>4}", f"loss {number(loss)}", f"kappa {number(view.kappa)}"]
    parts += [f"{label} {number(view.values[name])}" for name, label in SHOWN.items() if name in view.values]
    return ", ".join([*parts, workers(view.workers)])


def stands(view: JobView, loss: float | None) -> str:
    """The phase, and what it is about: numbers of a job that trains, else why it is there."""
    trains = view.status.phase in (Phase.RUNNING, Phase.RESIZING)
    return f"{view.status.phase}: {state(view, loss).lstrip() if trains else view.status.message}"


def share(progress: Progress) -> float:
    """How much of the training is done, from 0 to 1."""
    return min(1.0, progress.samples / progress.total_samples) if progress.total_samples else 0.0


def percent(progress: Progress) -> str:
    """How much of the training is done: 100% once all is."""
    return f"{int(100 * share(progress))}%"


def scores(target: Mapping[str, float | None], ema: Mapping[str, float | None] | None) -> str:
    """Scores of the weights, and in brackets those of their average. None is what JSON has for not finite."""

    def shown(score: float | None) -> str:
        return "not finite" if score is None else number(score)

    averaged = ema or {}
    return ", ".join(
        f"{name} {shown(score)}" + (f" (EMA {shown(averaged[name])})" if name in averaged else "")
        for name, score in target.items()
    )


def explain(code: str) -> str:
    """A code of the scaling rules, and what it means."""
    return f"{code} ({MEANING[code]})" if code in MEANING else code


def size_of(view: JobView) -> str:
    """How big a job is, or was when it trained last, and within which limits."""
    low, high = view.spec.elasticity.workers
    limits = f"{low} to {high}" if low < high else f"{low}"
    asked = "" if view.target_workers is None else f", asked for {view.target_workers}"
    if view.batch is None:
        return f"may have {limits} worker{'s' if high > 1 else ''}{asked}"
    trained = f"batch {view.batch}, kappa {number(view.kappa)}"
    if view.status.is_terminal:
        return f"{trained} at the end"
    return f"{workers(view.workers)} (may have {limits}{asked}), {trained}"


def duration(seconds: float) -> str:
    """`40 s`, `7 min 47 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def age(since: datetime, now: datetime) -> str:
    """The largest unit that fits: `40s`, `7m`, `2h`, `3d`."""
    seconds = max(0, int((now - since).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def workers(count: int) -> str:
    """`1 worker`, `2 workers`."""
    return counted(count, "worker")


def counted(count: int, noun: str) -> str:
    """A number of things that form their plural with an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def volume(size: int) -> str:
    """Bytes in the largest unit that fits: `812 B`, `1.2 MB`."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def number(value: Any) -> str:
    """Floats to four digits, lists by element, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(number(element) for element in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _asked(event: events.ResizeRequested) -> str:
    if event.workers is None:
        return "what was asked for was taken back"
    when = "" if event.at_samples is None else f" from sample {event.at_samples} on"
    return f"asked for {workers(event.workers)}{when}"


def _setting(value: Any) -> str:
    """What a PATCH may change: limits, labels, or a number."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items()) or "none"
    return " to ".join(map(number, value)) if isinstance(value, list | tuple) else number(value)


def _rolled_back(event: events.Rollback) -> str:
    again = (
        "" if event.samples_lost is None else f"; {counted(event.samples_lost, 'sample')} after it are trained again"
    )
    return f"back to the checkpoint at sample {event.to_samples}{again}"


def _resized(event: events.Resized) -> str:
    moves = [f"{event.workers[0]} -> {workers(event.workers[1])}"]
    moves.append(f"kappa {number(event.kappa[0])} -> {number(event.kappa[1])}")
    for name, label in SHOWN.items():
        if name in event.before and name in event.after:
            moves.append(f"{label} {number(event.before[name])} -> {number(event.after[name])}")
    return f"{', '.join(moves)}; paused {event.pause_s:.2f} s, {counted(event.steps_lost, 'step')} lost"
