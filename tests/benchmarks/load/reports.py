"""What a controller reports of a job that trains: mostly committed samples and points of curves, now and then more."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import count
from typing import Any

from api_schemas.exchange import Report

NAMES = ("loss", "lr", "ema_momentum", "samples_per_s", "kappa", "workers", "noise_scale", "grad_norm", "rho", "f")
FIRST = 64 * 1_000_000
"""Sample at which the reports begin: beyond the curves that are stored already."""
STEP = 128
LISTED_EVERY = 10
"""Of so many events one is of the kind that listeners hear."""


class Reporter:
    """The controller of one job, as far as its words go."""

    def __init__(self, job: str, acked: int = 0) -> None:
        self._job = job
        self._numbers = count(acked + 1)
        self._samples = FIRST + STEP * acked  # beyond what was reported before

    def beginning(self) -> Report:
        """The job trains."""
        values = {"lr": 0.2, "momentum": 0.81, "weight_decay": 0.0, "ema_momentum": 0.98}
        started = {
            "type": "started", "workers": 2, "kappa": 2.0, "batch": 128, "samples": 0, "values": values,
            "epoch_size": 1797, "total_samples": 1_797_000_000, "bn_momentum": None,
        }  # fmt: skip
        return self._report([self._event(**started), *self._step(), *self._step()])

    def more(self, events: int) -> Report:
        """So many events, of which the last that is listed carries the time at which it was made."""
        made: list[dict[str, Any]] = []
        while len(made) < events:
            made += self._step() if len(made) % LISTED_EVERY < LISTED_EVERY - 2 else self._said()
        return self._report(made)

    def _step(self) -> list[dict[str, Any]]:
        values = dict.fromkeys(NAMES[:5], 0.123456789)
        return [self._committed(), self._event(type="metrics", points=[(self._samples, values)])]

    def _said(self) -> list[dict[str, Any]]:
        return [self._committed(), self._event(type="warning", code="clock", message=repr(time.time()))]

    def _committed(self) -> dict[str, Any]:
        start, self._samples = self._samples, self._samples + STEP
        return self._event(type="committed", start=start, stop=self._samples)

    def _event(self, **fields: Any) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        return {
            "job": self._job,
            "incarnation": 1,
            "generation": 1,
            "sequence": next(self._numbers),
            "at": now,
        } | fields

    def _report(self, events: list[dict[str, Any]]) -> Report:
        state = {"generation": 1, "workers": 2, "joining": 0, "samples": self._samples, "done": False}
        return Report.model_validate({"job": self._job, "incarnation": 1, "events": events} | state)
