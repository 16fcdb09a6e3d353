"""BatchNorm's running statistics: an EMA per forward pass, in torch's convention a weight for the newest batch."""

from __future__ import annotations

import math

from api_schemas.scaling.decay import check_decay
from api_schemas.scaling.findings import Finding, finding
from api_schemas.scaling.scale import check_kappa, check_positive


def batchnorm_momentum(
    momentum: float | None, kappa: float, forwards: float = 1, base_forwards: float = 1
) -> float | None:
    """1 - (1 - m)^(kappa base_forwards / forwards), with forward passes per optimizer step, here and in the base run.

    None, torch's cumulative average, stays None. The statistics are kept at a switch, and have to be averaged over the
    workers. Raises `kappa_invalid` (for forwards that are not above 0 too), `decay_out_of_range`. Derived for this
    project from the rule of arXiv 2307.13813.
    """
    ratio = check_positive("The base run's number of forwards", base_forwards) / check_positive(
        "The number of forwards", forwards
    )
    exponent = check_kappa(kappa) * ratio
    if momentum is None:
        return None
    momentum = check_decay("BatchNorm's momentum", momentum)
    return 1.0 if momentum == 1 else -math.expm1(exponent * math.log1p(-momentum))


def batchnorm_findings(momentum: float | None, kappa: float) -> tuple[Finding, ...]:
    """`bn_coarse` where kappa m > 1. Raises `kappa_invalid`, `decay_out_of_range`. Derived for this project."""
    kappa = check_kappa(kappa)
    if momentum is None or kappa * check_decay("BatchNorm's momentum", momentum) <= 1:
        return ()
    return (finding("bn_coarse", kappa=kappa, momentum=momentum),)
