"""Adagrad: a second moment that is summed over steps and never forgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api_schemas.scaling.scale import Scale


def matched_adagrad(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """lr sqrt(k V), eps sqrt(V / k), lr_decay k, initial_accumulator_value V / k. Derived for this project.

    Over the same samples the sum has 1 / k as many terms of V times the size.
    """
    size = _sum_size(scale)
    return {
        "lr": base["lr"] * scale.kappa * math.sqrt(size),
        "eps": base["eps"] * math.sqrt(size),
        "lr_decay": base["lr_decay"] * scale.kappa,
        "initial_accumulator_value": base["initial_accumulator_value"] * size,
    }


def adagrad_factors(_base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """sum x (Vn / kn) / (Vo / ko), step x ko / kn. Derived for this project."""
    return {"sum": _sum_size(new) / _sum_size(old), "step": old.kappa / new.kappa}


def _sum_size(scale: Scale) -> float:
    return scale.gain / scale.kappa
