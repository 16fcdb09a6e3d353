"""Adam, AMSGrad, AdamW, NAdam, RAdam and LAMB: rules for bias-corrected moments.

The second moment v measures the gradient's mean square, which is V(kappa) of what it was at the base batch. Learning
rate, eps and v move by one and the same V, so that lr m / (sqrt(v) + eps) per sample stays. `step` is rescaled to keep
the bias corrections, powers of beta, where they are in samples. With base-batch second moments fed in (`per_worker`)
the same rules hold with f = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api_schemas.scaling.decay import complement, linear_decay
from api_schemas.scaling.findings import refusal
from api_schemas.scaling.scale import Scale


def matched_adam(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """lr k sqrt(V), betas^k, eps sqrt(V); decay that bypasses v (`decoupled_weight_decay`) / sqrt(V), L2 kept.

    Derived for this project; at f = 1 its learning rate and eps are the square-root rule of arXiv 2205.10287.
    """
    return _matched(base, scale, decoupled=bool(base.get("decoupled_weight_decay", False)))


def matched_adamw(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """Adam's rule with decoupled decay: lr' wd' = k lr wd. Derived for this project."""
    return _matched(base, scale, decoupled=True)


def matched_nadam(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """Adam's rule; `momentum_decay` is a rate per step, so x k. Derived for this project."""
    return {**matched_adam(base, scale), "momentum_decay": base["momentum_decay"] * scale.kappa}


def matched_radam(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """Adam's rule; raises `rectification_lost` where beta2^k <= 2/3. Derived for this project."""
    _check_rectified(base, scale.kappa)
    return matched_adam(base, scale)


def matched_lamb(base: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """AdamW's rule but for lr k sqrt(e(k) / e(1)): the trust ratio sees the noise in m. Derived for this project."""
    at_base = _update_mean_square(base["betas"][0], Scale(1.0, scale.f))
    at_kappa = _update_mean_square(base["betas"][0], scale)
    # Both are 0 for pure noise averaged for ever (beta1 = 1): the limit of their ratio is 1.
    root = math.sqrt(at_kappa / at_base) if at_base else 1.0
    return {**matched_adamw(base, scale), "lr": base["lr"] * scale.kappa * root}


def published_adam(base: Mapping[str, Any], kappa: float) -> dict[str, Any]:
    """The square-root rule of arXiv 2205.10287: lr sqrt(k), 1 - k (1 - beta), eps / sqrt(k).

    Raises `decay_out_of_range` where a beta would fall below 0.
    """
    return {
        "lr": base["lr"] * math.sqrt(kappa),
        "betas": tuple(linear_decay(f"beta{i}", beta, kappa) for i, beta in enumerate(base["betas"], start=1)),
        "eps": base["eps"] / math.sqrt(kappa),
    }


def adam_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """exp_avg kept, second moments x Vn / Vo, step x ko / kn (torch takes fractions). Derived for this project."""
    gain = new.gain / old.gain
    factors = {"exp_avg": 1.0, "exp_avg_sq": gain, "step": old.kappa / new.kappa}
    return {**factors, "max_exp_avg_sq": gain} if base.get("amsgrad") else factors


def nadam_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """Adam's factors; the running product of momenta is one of powers of beta, and kept. Derived for this project."""
    return {**adam_factors(base, old, new), "mu_product": 1.0}


def radam_factors(base: Mapping[str, Any], old: Scale, new: Scale) -> dict[str, float]:
    """Adam's factors; raises `rectification_lost` like `matched_radam`. Derived for this project."""
    _check_rectified(base, old.kappa)
    _check_rectified(base, new.kappa)
    return adam_factors(base, old, new)


def _matched(base: Mapping[str, Any], scale: Scale, *, decoupled: bool) -> dict[str, Any]:
    root = math.sqrt(scale.gain)
    return {
        "lr": base["lr"] * scale.kappa * root,
        "betas": tuple(beta**scale.kappa for beta in base["betas"]),
        "eps": base["eps"] * root,
        "weight_decay": base["weight_decay"] / root if decoupled else base["weight_decay"],
    }


def _update_mean_square(beta1: float, scale: Scale) -> float:
    """e(q) = 1 - f + f (1 - b1^q) / (q (1 + b1^q)): the mean square of an exponential average of noisy gradients."""
    forgotten = complement(beta1, scale.kappa)
    return 1 - scale.f + scale.f * forgotten / (scale.kappa * (2 - forgotten))


def _check_rectified(base: Mapping[str, Any], kappa: float) -> None:
    beta2 = base["betas"][1] ** kappa
    if beta2 <= 2 / 3:
        raise refusal("rectification_lost", kappa=kappa, value=beta2)
