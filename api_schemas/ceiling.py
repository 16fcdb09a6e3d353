"""How large kappa may be at a sample, within a job's limits: as its plan says, and as the noise allows. Pure.

A plan is progressive scaling: the base batch first, larger ones later, arXiv 2307.13813, section 3.4. Beyond the noise
scale a larger batch saves hardly any step (arXiv 1812.06162); to follow it in a running job is made for this project.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from api_schemas.dynamics import Horizon
from api_schemas.jobs import JobSpec, ProgressiveStage

REVISIONS = 100
"""Times over a whole job that the noise is looked at."""

READINGS = 10
"""So many looks, one after the other, have to agree that the ceiling should move: a tenth of a job."""

STRIDE = 1.25
"""By such a factor at least: what is measured is an estimate, and a batch that flaps serves nobody."""

LARGEST = 1e4
"""No job may have a larger kappa."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The largest kappa, and why."""

    kappa: float = math.inf
    cause: str = ""
    reason: str = ""  # a sentence

    def over(self, limits: tuple[float, float]) -> tuple[float, float]:
        """These limits of kappa below it; the lower one holds in any case."""
        low, high = limits
        return low, max(low, min(high, self.kappa))


UNMEASURED = Ceiling(kappa=1.0, cause="noise", reason="The noise scale is not measured yet: kappa may be 1.")


def ceiling(spec: JobSpec, horizon: Horizon, samples: int, noise: Ceiling) -> Ceiling:
    """That in force after so many samples, `noise` being what the noise allows."""
    return min(planned(spec, horizon, samples), noise, key=lambda each: each.kappa)


def planned(spec: JobSpec, horizon: Horizon, samples: int) -> Ceiling:
    """What `elasticity.progressive` says after so many samples; nothing after its last stage."""

    def end(stage: ProgressiveStage) -> float:
        return stage.until.samples(epoch_size=horizon.epoch_size, base_batch=spec.batch.base)

    stages = sorted(spec.elasticity.progressive, key=end)
    if not stages:
        return Ceiling()
    stage = next((stage for stage in stages if samples < end(stage)), None)
    if stage is None:
        last = stages[-1].until
        return Ceiling(cause="progressive", reason=f"The plan ends with {last}: kappa may be as large as it can.")
    reason = f"Until {stage.until} kappa may be {stage.kappa_max:g}."
    return Ceiling(kappa=stage.kappa_max, cause="progressive", reason=reason)


def by_noise(spec: JobSpec, readings: Sequence[float], held: Ceiling) -> Ceiling:
    """What the newest readings of B_noise, in samples, allow in the mode `auto`: each times `noise_margin` / B0.

    One reading may be twice the next while the noise stays the same. So what was `held` stays while it lies among
    them, or near; else it becomes the nearest of them. Before there are `READINGS` the base batch is allowed. Other
    modes do not ask. Derived for this project.
    """
    if spec.elasticity.mode != "auto":
        return Ceiling()
    if len(readings) < READINGS:
        return held if held.cause else UNMEASURED
    low, high = min(readings[-READINGS:]), max(readings[-READINGS:])
    before = held.kappa if held.cause else UNMEASURED.kappa
    kappa = min(max(before, _allowed(spec, low)), _allowed(spec, high))
    if held not in (Ceiling(), UNMEASURED) and before / STRIDE < kappa < before * STRIDE:
        return held
    reason = f"The noise scale was {_samples(low, high)} of late: kappa may be {_rounded(kappa)}."
    return Ceiling(kappa=kappa, cause="noise", reason=reason)


def _allowed(spec: JobSpec, noise_batch: float) -> float:
    return min(LARGEST, spec.elasticity.noise_margin * noise_batch / spec.batch.base)


def _samples(low: float, high: float) -> str:
    if math.isinf(high):
        return "beyond measure" if math.isinf(low) else f"{low:.0f} samples and more"
    first, last = f"{low:.0f}", f"{high:.0f}"
    return f"{first} samples" if first == last else f"{first} to {last} samples"


def _rounded(kappa: float) -> str:
    return "as large as it can" if kappa >= LARGEST else f"{kappa:.3g}"
