"""Whether SGD's step at kappa still converges on a quadratic of known curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from api_schemas.scaling.decay import check_momentum, complement
from api_schemas.scaling.findings import Finding, finding
from api_schemas.scaling.rules import MATCHED, check_rule_set
from api_schemas.scaling.scale import check_kappa

COARSE = 0.25  # share of the bound above which a step no longer follows the base run


@dataclass(frozen=True, slots=True)
class Stability:
    """A step along the steepest direction, and the size at which it diverges; both without a unit."""

    x: float
    bound: float
    code: str | None  # step_unstable, step_coarse or None

    @property
    def finding(self) -> Finding | None:
        """The sentence that goes with the code."""
        return finding(self.code, x=self.x, bound=self.bound) if self.code else None


def stability(
    lr: float,
    mu: float,
    dampening: float,
    nesterov: bool,
    kappa: float,
    lambda_max: float,
    rule: str = MATCHED,
    *,
    weight_decay: float = 0.0,
) -> Stability:
    """x = kappa lr_eff lambda_max against its bound, where lr_eff = lr (1 - dampening) / (1 - mu) of the base batch.

    `lambda_max` is the largest curvature; coupled `weight_decay` adds to it. With m = mu^kappa ("published": mu) the
    bound is 2 (1 + m) / (1 - m), with Nesterov that over 1 + 2m. Code `step_unstable` at or above it, `step_coarse`
    above a quarter of it. Without momentum torch ignores dampening: pass 0.

    Raises `rule_undefined`, `kappa_invalid`, `decay_out_of_range`. Source: the stability triangle of a linear recursion
    of second order; its use with mu^kappa is derived for this project.
    """
    check_rule_set(rule)
    kappa, mu = check_kappa(kappa), check_momentum("momentum", mu)
    x = kappa * (lr * (1 - dampening) / (1 - mu)) * (lambda_max + weight_decay)
    bound = _bound(mu, kappa if rule == MATCHED else 1.0, nesterov)
    return Stability(x=x, bound=bound, code=_code(x, bound))


def _bound(mu: float, kappa: float, nesterov: bool) -> float:
    momentum = math.pow(mu, kappa)
    heavy_ball = 2 * (1 + momentum) / complement(mu, kappa)
    return heavy_ball / (1 + 2 * momentum) if nesterov else heavy_ball


def _code(x: float, bound: float) -> str | None:
    if not x < bound:  # NaN, from a curvature that could not be measured, is not stable
        return "step_unstable"
    return "step_coarse" if x > COARSE * bound else None
