"""How noisy the gradient is, smoothed over the run: the source of f and of B_noise.

tr Sigma and |G|^2 are averaged apart, by samples, and divided only then (`api_schemas.scaling.noise`). |G|^2 of a
single step may come out negative; it is averaged as it is, for a clamp before the average would bias it. Derived for
this project.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from api_schemas import scaling

WINDOW = 100
"""Base batches over which the average forgets."""


@dataclass(kw_only=True)
class NoiseEstimate:
    """The averages, and how much of them is filled (0: nothing was measured yet)."""

    trace_sigma: float = 0.0  # per sample
    grad_sqnorm: float = 0.0
    filled: float = 0.0

    def add(self, mean_sqnorm: float, sqnorm_mean: float, *, shards: int, batch: int, base_batch: int) -> None:
        """A step's sum w_i |g_i|^2 and |gbar|^2. One that is not finite says nothing and is left out."""
        if not (math.isfinite(mean_sqnorm) and math.isfinite(sqnorm_mean)):
            return
        trace = scaling.noise_scale(mean_sqnorm, sqnorm_mean, shards, batch, base_batch).trace_sigma
        share = -math.expm1(-batch / (WINDOW * base_batch))
        self.trace_sigma += share * (trace - self.trace_sigma)
        self.grad_sqnorm += share * (sqnorm_mean - trace / batch - self.grad_sqnorm)
        self.filled += share * (1 - self.filled)

    @property
    def settled(self) -> bool:
        """Whether a batch may follow it: before, it is what the first few steps happened to be."""
        return self.filled >= 0.5

    def scale(self, base_batch: int) -> scaling.NoiseScale | None:
        """f at the base batch, and B_noise; None where nothing was measured yet."""
        if not self.filled:
            return None
        squares = max(self.grad_sqnorm, 0.0) / self.filled
        return scaling.noise_scale_of(self.trace_sigma / self.filled, squares, base_batch)

    def to_dict(self) -> dict[str, float]:
        """The arguments of a copy elsewhere."""
        return asdict(self)
