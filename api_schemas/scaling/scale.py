"""How far a run is from its base batch: kappa, the noise fraction f, and the gradient's second moment under both."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from api_schemas.scaling.findings import refusal


def check_kappa(kappa: float) -> float:
    """`kappa` itself; raises `kappa_invalid` unless it is a finite number above 0 (a bool is no number here)."""
    return check_positive("The batch multiplier kappa = B / B0", kappa)


def check_positive(name: str, value: float) -> float:
    """`value` itself, a batch size or another part of a kappa; the same check with its own name in the message."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= sys.float_info.max:
        raise refusal("kappa_invalid", name=name, value=value)
    return float(value)


def check_fraction(f: float) -> float:
    """`f` itself; raises ValueError outside [0, 1], which no measurement gives."""
    if not 0 <= f <= 1:
        raise ValueError(f"the noise fraction f is {f}; it has to lie in [0, 1]")
    return float(f)


def noise_gain(kappa: float, f: float) -> float:
    """V(kappa) = 1 - f + f / kappa: the gradient's mean square at kappa, over its mean square at the base batch.

    `f` is the share of noise in that mean square at the base batch, in [0, 1] (ValueError otherwise). Raises
    `kappa_invalid`. Exactly 1 at kappa = 1. Source: the variance of a mean of independent samples; f = 1 is the regime
    of arXiv 2205.10287, a general f is derived for this project.
    """
    kappa, f = check_kappa(kappa), check_fraction(f)
    return 1.0 if kappa == 1 else (1 - f) + f / kappa


@dataclass(frozen=True, slots=True)
class Scale:
    """One batch size, as the rules see it."""

    kappa: float  # batch over base batch
    f: float  # noise fraction of the gradient's mean square at the base batch

    @property
    def gain(self) -> float:
        """V(kappa), see `noise_gain`."""
        return noise_gain(self.kappa, self.f)
