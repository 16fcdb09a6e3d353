"""Lion: steps of constant size, whose direction is the sign of a short average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api_schemas.scaling.scale import Scale


def matched_lion(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """lr k, 1 - beta1' = min(1, sqrt(k) (1 - beta1)), beta2^k, weight decay kept.

    A heuristic, measured rather than proved; derived for this project.
    """
    beta1, beta2 = base["betas"]
    root = math.sqrt(scale.kappa)
    return {"lr": base["lr"] * scale.kappa, "betas": (max(0.0, (1 - root) + root * beta1), beta2**scale.kappa)}


def lion_factors(_base: Mapping[str, Any], _old: Scale, _new: Scale) -> dict[str, float]:
    """Its one state is an average of gradients, and kept. Derived for this project."""
    return {"exp_avg": 1.0}
