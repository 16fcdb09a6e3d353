"""Gradient clipping by norm, whose threshold was tuned for the noisier gradient of the base batch."""

from __future__ import annotations

import math

from api_schemas.scaling.scale import check_kappa, noise_gain


def clip_norm(max_norm: float, kappa: float, f: float | None = None, measured: bool = True) -> float:
    """The threshold for the norm of the whole averaged gradient at kappa: max_norm sqrt(V).

    Only with a measured noise fraction `f` at the base batch; without (`measured` false, or f None) it stays max_norm,
    since max_norm / sqrt(kappa) is wrong wherever there is signal. Where every shard is a base batch, clip each at
    max_norm before averaging instead. Raises `kappa_invalid`; ValueError for an f outside [0, 1]. Derived for this
    project.
    """
    kappa = check_kappa(kappa)
    return max_norm * math.sqrt(noise_gain(kappa, f)) if measured and f is not None else max_norm
