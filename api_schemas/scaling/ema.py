"""Exponential moving averages of weights: rho per optimizer step, at any batch size.

The EMA Scaling Rule of arXiv 2307.13813 raises rho to the power kappa, so that the average forgets as fast in samples
as at the base batch. It holds for every other EMA of a method too, such as DINO's centre.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from api_schemas.scaling.decay import check_decay, complement
from api_schemas.scaling.findings import Finding, finding, refusal
from api_schemas.scaling.scale import check_kappa, check_positive
from api_schemas.scaling.schedule import progress


def ema_momentum(rho: float, kappa: float) -> float:
    """rho^kappa, for a rho in [0, 1] per base step. Raises `kappa_invalid`, `decay_out_of_range`. arXiv 2307.13813."""
    kappa = check_kappa(kappa)
    return math.pow(check_decay("rho", rho), kappa)


class EmaInterpolation(NamedTuple):
    """ema <- decay * ema + c_old * (weights before the step) + c_new * (weights after it)."""

    c_old: float
    c_new: float
    decay: float


def ema_interpolation(rho: float, kappa: float) -> EmaInterpolation:
    """The update that averages as kappa base steps would, had the weights moved along a line between the two.

    An average of the weights after the step alone is ahead of the base run, one of those before it behind, both by
    about |g| lr (1 - rho) k (k - 1) / 2; this removes that error to second order. At kappa = 1 it is the usual update.
    Below kappa = 1 c_old is negative. Raises `kappa_invalid`, `decay_out_of_range`. Derived for this project.
    """
    decay = ema_momentum(rho, kappa)
    if rho == 1:
        return EmaInterpolation(c_old=0.0, c_new=0.0, decay=decay)
    c_new = _weight_after(rho, kappa)
    return EmaInterpolation(c_old=complement(rho, kappa) - c_new, c_new=c_new, decay=decay)


def ema_cosine(rho0: float, samples: float, total_samples: float) -> float:
    """The base momentum rho(s), a half cosine from rho0 at the start to 1 at `total_samples` and beyond.

    A function of samples seen, so a change of batch size does not move it; `ema_momentum` adds kappa on top. Raises
    `decay_out_of_range`. Source: the teacher's schedule of arXiv 2006.07733.
    """
    rho0 = check_decay("rho0", rho0)
    return rho0 + (1 - rho0) * math.sin(math.pi / 2 * progress(samples, total_samples)) ** 2


def ema_warmup(rho: float, samples: float, base_batch: float) -> float:
    """The base momentum of an EMA that starts short: min(rho, (1 + t) / (10 + t)) after t = samples / base_batch steps.

    t counts base steps, fractions too, so a change of batch size does not move it; `ema_momentum` adds kappa on top.
    Raises `decay_out_of_range`, and `kappa_invalid` for a base batch that is not above 0. Source: `num_updates` of
    TensorFlow's ExponentialMovingAverage; to count it in base steps is derived for this project.
    """
    t = samples / check_positive("The base batch size", base_batch)
    return min(check_decay("rho", rho), (1 + t) / (10 + t))


def ema_half_life(rho: float, batch: float) -> float:
    """Samples after which a weight counts half in an EMA of momentum `rho` per step of `batch` samples.

    0 at rho = 0 and infinite at rho = 1. The same for rho^kappa at kappa * batch. Raises `decay_out_of_range`, and
    `kappa_invalid` for a batch that is not above 0. Derived for this project.
    """
    batch, rho = check_positive("The batch size", batch), check_decay("rho", rho)
    if rho in (0, 1):
        return math.inf if rho else 0.0
    return batch * math.log(0.5) / math.log(rho)


def momentum_from_half_life(half_life_samples: float, base_batch: float) -> float:
    """The rho per step of `base_batch` samples with that half-life: the inverse of `ema_half_life`, same errors.

    A negative half-life is a momentum outside [0, 1]: `decay_out_of_range`. Derived for this project.
    """
    base_batch = check_positive("The base batch size", base_batch)
    if not half_life_samples >= 0:
        allowed = "[0, infinity] samples"
        raise refusal("decay_out_of_range", name="the half-life", value=half_life_samples, allowed=allowed)
    return math.pow(0.5, base_batch / half_life_samples) if half_life_samples else 0.0


def ema_findings(rho: float, kappa: float) -> tuple[Finding, ...]:
    """`ema_coarse` where kappa (1 - rho) > 1.

    Raises `kappa_invalid`, `decay_out_of_range`. Derived for this project.
    """
    kappa, rho = check_kappa(kappa), check_decay("rho", rho)
    return (finding("ema_coarse", kappa=kappa, decay=rho),) if kappa * (1 - rho) > 1 else ()


def _weight_after(rho: float, kappa: float) -> float:
    """1 - rho (1 - rho^k) / (k (1 - rho)) for a rho in [0, 1).

    Near rho = 1 it is a small difference of numbers near 1. With a = -log(rho) and g below it equals
    (g(ka) - g(-a)) a / (e^a - 1), whose two terms have the same sign.
    """
    if rho < 0.5:
        return 1 - rho * complement(rho, kappa) / (kappa * (1 - rho))
    rate = -math.log(rho)
    return (_shortfall(kappa * rate) - _shortfall(-rate)) * rate / math.expm1(rate)


def _shortfall(x: float) -> float:
    """g(x) = 1 - (1 - e^-x) / x, by its power series where that quotient is near 1."""
    if abs(x) > 0.5:
        return 1 + math.expm1(-x) / x
    total, term = 0.0, -1.0
    for n in range(2, 18):
        term *= -x / n
        total += term
    return total
