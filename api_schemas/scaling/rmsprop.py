"""RMSProp: a second moment without bias correction, and momentum on the normalised gradient.

Centered, its denominator is the gradient's variance instead of its mean square, which falls as 1 / kappa whatever f is:
V with f = 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api_schemas.scaling.decay import complement_ratio, linear_decay
from api_schemas.scaling.scale import Scale, check_kappa
from api_schemas.scaling.sgd import normalised_factor


def matched_rmsprop(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """lr k sqrt(V) (1 - mu^k) / (1 - mu), alpha^k, eps sqrt(V), mu^k. Derived for this project."""
    kappa, momentum = scale.kappa, base["momentum"]
    root = math.sqrt(_denominator(base, scale).gain)
    return {
        "lr": base["lr"] * kappa * root * complement_ratio(momentum, kappa, 1.0),
        "alpha": base["alpha"] ** kappa,
        "eps": base["eps"] * root,
        "momentum": momentum**kappa,
    }


def published_rmsprop(base: Mapping[str, Any], kappa: float) -> dict[str, Any]:
    """The square-root rule of arXiv 2205.10287: lr sqrt(k), 1 - k (1 - alpha), eps / sqrt(k), momentum kept.

    Raises `decay_out_of_range` where alpha would fall below 0.
    """
    return {
        "lr": base["lr"] * math.sqrt(kappa),
        "alpha": linear_decay("alpha", base["alpha"], kappa),
        "eps": base["eps"] / math.sqrt(kappa),
    }


def has_factors(base: Mapping[str, Any]) -> bool:
    """Whether a factor per tensor converts the state. Centered it does not: see `centered_square_avg`."""
    return not base["centered"]


def rmsprop_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """square_avg x Vn / Vo, step x ko / kn, and the buffer as in LARS. Derived for this project."""
    factors = {
        "square_avg": new.gain / old.gain,
        "step": old.kappa / new.kappa,
        "momentum_buffer": complement_ratio(base["momentum"], old.kappa, new.kappa) * normalised_factor(base, old, new),
    }
    return {**factors, "grad_avg": 1.0} if base["centered"] else factors


def centered_square_avg(square_avg: Any, grad_avg: Any, kappa_old: float, kappa_new: float) -> Any:
    """Centered RMSProp's `square_avg` at kappa_new: the mean square stays, the variance above it goes x ko / kn.

    Floats or tensors, elementwise; `grad_avg` is kept as it is. Scaling square_avg alone would put it below grad_avg^2,
    and torch takes the root of the difference. Raises `kappa_invalid`. Derived for this project.
    """
    ratio = check_kappa(kappa_old) / check_kappa(kappa_new)
    squared_mean = grad_avg * grad_avg
    return squared_mean + ratio * (square_avg - squared_mean)


def _denominator(base: Mapping[str, Any], scale: Scale) -> Scale:
    return Scale(scale.kappa, 1.0) if base["centered"] else scale
