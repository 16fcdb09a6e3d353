"""SGD and LARS: rules for a momentum buffer.

torch's buffer is a sum, b <- mu b + g, worth 1 / (1 - mu) gradients. With mu' = mu^kappa the same memory in samples is
a shorter sum, so the learning rate takes up the difference. With dampening = momentum the buffer is an average instead,
and nothing has to be taken up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api_schemas.scaling.decay import complement_ratio
from api_schemas.scaling.scale import Scale


def matched_sgd(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """mu^k, lr k (1 - mu^k) / (1 - mu); lr k where the buffer is an average. Derived for this project."""
    return _with_momentum(base, scale.kappa, scale.kappa)


def matched_lars(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """SGD's rule with k sqrt(V) for k: the trust ratio divides by the gradient's norm. Derived for this project."""
    return _with_momentum(base, scale.kappa, scale.kappa * math.sqrt(scale.gain))


def published_sgd(base: Mapping[str, Any], kappa: float) -> dict[str, Any]:
    """The linear rule of arXiv 1706.02677: lr k, momentum kept."""
    return {"lr": base["lr"] * kappa}


def sgd_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """The sum shrinks with the memory in steps, an average stays. Derived for this project."""
    return {"momentum_buffer": 1.0 if _averages(base) else complement_ratio(base["momentum"], old.kappa, new.kappa)}


def lars_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """SGD's factor; what the buffer holds is divided by the gradient's norm besides. Derived for this project."""
    return {"momentum_buffer": sgd_factors(base, old, new)["momentum_buffer"] * normalised_factor(base, old, new)}


def normalised_factor(base: Mapping[str, Any], old: Scale, new: Scale) -> float:
    """sqrt(Vo / Vn), for a buffer of gradients over their root mean square; 1 without momentum, where there is none."""
    return math.sqrt(old.gain / new.gain) if base["momentum"] else 1.0


def _with_momentum(base: Mapping[str, Any], kappa: float, gain: float) -> dict[str, Any]:
    momentum = base["momentum"] ** kappa
    lr = base["lr"] * gain
    if _averages(base):
        return {"lr": lr, "momentum": momentum, "dampening": momentum}
    return {"lr": lr * complement_ratio(base["momentum"], kappa, 1.0), "momentum": momentum}


def _averages(base: Mapping[str, Any]) -> bool:
    return bool(base["momentum"] > 0 and base["dampening"] == base["momentum"])
