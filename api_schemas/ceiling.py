"""How large kappa may be at a sample, within a job's limits: as its plan says, and as the noise allows. Pure.

A plan is progressive scaling: the base batch first, larger ones later, arXiv 2307.13813, section 3.4. Beyond the noise
scale a larger batch saves hardly any step (arXiv 1812.06162); to follow it in a running job is made for this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from api_schemas.dynamics import Horizon
from api_schemas.jobs import JobSpec

REVISIONS = 100
"""Times over a whole job that the noise may move the ceiling."""

STRIDE = 1.25
"""By such a factor at least: what is measured is an estimate, and a batch that flaps serves nobody."""


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


def ceiling(spec: JobSpec, horizon: Horizon, samples: int, noise: Ceiling) -> Ceiling:
    """That in force after so many samples, `noise` being what the noise allows."""
    return min(planned(spec, horizon, samples), noise, key=lambda each: each.kappa)


def planned(spec: JobSpec, horizon: Horizon, samples: int) -> Ceiling:
    """What `elasticity.progressive` says after so many samples; nothing before its first stage."""
    lengths = {"epoch_size": horizon.epoch_size, "base_batch": spec.batch.base}
    begun = [stage for stage in spec.elasticity.progressive if stage.after.samples(**lengths) <= samples]
    if not begun:
        return Ceiling()
    stage = max(begun, key=lambda stage: stage.after.samples(**lengths))
    return Ceiling(
        kappa=stage.kappa, cause="progressive", reason=f"From {stage.after} on kappa may be {stage.kappa:g}."
    )


def by_noise(spec: JobSpec, noise_batch: float | None, held: Ceiling) -> Ceiling:
    """What a B_noise allows in the mode `auto`: `margin` times B_noise / B0, or what was `held` where that is near.

    Unknown noise allows the base batch. Other modes do not ask.
    """
    if spec.elasticity.mode != "auto":
        return Ceiling()
    if noise_batch is None:
        return Ceiling(kappa=1.0, cause="noise", reason="The noise scale is not measured yet: kappa may be 1.")
    kappa = spec.elasticity.margin * noise_batch / spec.batch.base
    if held.cause and held.kappa / STRIDE < kappa < held.kappa * STRIDE:
        return held
    told = "beyond measure" if math.isinf(kappa) else f"{noise_batch:.0f} samples"
    return Ceiling(kappa=kappa, cause="noise", reason=f"The noise scale is {told}: kappa may be {_rounded(kappa)}.")


def _rounded(kappa: float) -> str:
    return "as large as it can" if math.isinf(kappa) else f"{kappa:.3g}"
