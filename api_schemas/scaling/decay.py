"""A decay rate per optimizer step (momentum, beta, rho): its range, and what is left of it over kappa base steps."""

from __future__ import annotations

import math

from api_schemas.scaling.findings import refusal


def check_decay(name: str, value: float) -> float:
    """`value` itself; raises `decay_out_of_range` outside [0, 1]."""
    if not 0 <= value <= 1:
        raise refusal("decay_out_of_range", name=name, value=value, allowed="[0, 1]")
    return float(value)


def check_momentum(name: str, value: float) -> float:
    """`value` itself; raises `decay_out_of_range` outside [0, 1): a buffer that forgets nothing has no scale."""
    if not 0 <= value < 1:
        raise refusal("decay_out_of_range", name=name, value=value, allowed="[0, 1)")
    return float(value)


def complement(decay: float, kappa: float) -> float:
    """1 - decay^kappa for a decay in [0, 1], without the cancellation near 1."""
    return 1.0 if decay == 0 else -math.expm1(kappa * math.log(decay))


def complement_ratio(decay: float, numerator: float, denominator: float) -> float:
    """(1 - decay^numerator) / (1 - decay^denominator) for a decay in [0, 1); exactly 1 where both are equal."""
    return complement(decay, numerator) / complement(decay, denominator)


def linear_decay(name: str, decay: float, kappa: float) -> float:
    """1 - kappa (1 - decay), the first-order rule of arXiv 2205.10287; raises `decay_out_of_range` below 0.

    Written so that a result of 0, as for decay = 0.95 at kappa = 20, is not rounded to below 0.
    """
    return check_decay(f"{name} at kappa = {kappa:g}", (1 - kappa) + kappa * decay)
