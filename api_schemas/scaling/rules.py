"""RULES: one row an optimizer. A new optimizer is one row here and its functions in a family's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from api_schemas.scaling import adagrad, adam, lion, rmsprop, sgd
from api_schemas.scaling.findings import refusal
from api_schemas.scaling.scale import Scale

MATCHED, PUBLISHED = "matched", "published"

Values = Mapping[str, Any]  # hyperparameters by torch's names: numbers, bools, `betas` a tuple


def _always(_base: Values) -> bool:
    return True


def _momentum(base: Values) -> float:
    return float(base["momentum"])


def _alpha(base: Values) -> float:
    return float(base["alpha"])


def _beta1(base: Values) -> float:
    return float(base["betas"][0])


def _beta2(base: Values) -> float:
    return float(base["betas"][1])


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to one optimizer's numbers when the batch size changes."""

    torch_class: str | None  # its name in torch.optim; None where torch has none
    defaults: Values  # of the constructor, for keys that the base leaves out
    matched: Callable[[Values, Scale], dict[str, Any]]  # the hyperparameters that change, at a scale
    factors: Callable[[Values, Scale, Scale], dict[str, float]]  # of each state tensor and counter, old scale to new
    has_factors: Callable[[Values], bool] = _always  # False where one factor a tensor cannot convert the state
    published: Callable[[Values, float], dict[str, Any]] | None = None  # the papers' rule at kappa, where there is one
    per_worker: bool = False  # whether base-batch second moments may be fed in
    momentum: Callable[[Values], float] | None = None  # decay of the first moment
    second_moment: Callable[[Values], float] | None = None  # decay of a second moment that sees the noise


_ADAM: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

# The defaults of LARS, LAMB and Lion, which torch lacks, are those of the papers' own or best known code: timm's LARS,
# LAMB of arXiv 1904.00962 and Lion of arXiv 2302.06675, without weight decay.
RULES: dict[str, Rule] = {
    "sgd": Rule(
        torch_class="SGD",
        defaults={"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
        matched=sgd.matched_sgd,
        published=sgd.published_sgd,
        factors=sgd.sgd_factors,
        momentum=_momentum,
    ),
    "lars": Rule(
        torch_class=None,
        defaults={"lr": 1.0, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
        matched=sgd.matched_lars,
        factors=sgd.lars_factors,
        momentum=_momentum,
    ),
    "adam": Rule(
        torch_class="Adam",
        defaults={**_ADAM, "amsgrad": False},
        matched=adam.matched_adam,
        published=adam.published_adam,
        factors=adam.adam_factors,
        per_worker=True,
        momentum=_beta1,
        second_moment=_beta2,
    ),
    "adamw": Rule(
        torch_class="AdamW",
        defaults={**_ADAM, "weight_decay": 1e-2, "amsgrad": False},
        matched=adam.matched_adamw,
        published=adam.published_adam,
        factors=adam.adam_factors,
        per_worker=True,
        momentum=_beta1,
        second_moment=_beta2,
    ),
    "nadam": Rule(
        torch_class="NAdam",
        defaults={**_ADAM, "lr": 2e-3, "momentum_decay": 4e-3, "decoupled_weight_decay": False},
        matched=adam.matched_nadam,
        factors=adam.nadam_factors,
        momentum=_beta1,
        second_moment=_beta2,
    ),
    "radam": Rule(
        torch_class="RAdam",
        defaults={**_ADAM, "decoupled_weight_decay": False},
        matched=adam.matched_radam,
        factors=adam.radam_factors,
        momentum=_beta1,
        second_moment=_beta2,
    ),
    "lamb": Rule(
        torch_class=None,
        defaults={**_ADAM, "eps": 1e-6},
        matched=adam.matched_lamb,
        factors=adam.adam_factors,
        momentum=_beta1,
        second_moment=_beta2,
    ),
    "rmsprop": Rule(
        torch_class="RMSprop",
        defaults={"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
        matched=rmsprop.matched_rmsprop,
        published=rmsprop.published_rmsprop,
        factors=rmsprop.rmsprop_factors,
        has_factors=rmsprop.has_factors,
        momentum=_momentum,
        second_moment=_alpha,
    ),
    "adagrad": Rule(
        torch_class="Adagrad",
        defaults={"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
        matched=adagrad.matched_adagrad,
        factors=adagrad.adagrad_factors,
    ),
    "lion": Rule(
        torch_class=None,
        defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0},
        matched=lion.matched_lion,
        factors=lion.lion_factors,
        momentum=_beta1,
    ),
}


def check_rule_set(rule: str) -> str:
    """`rule` itself; raises `rule_undefined` unless it names one of the two rule sets."""
    if rule not in (MATCHED, PUBLISHED):
        raise refusal("rule_undefined", reason=f"There is no rule set {rule!r}: choose {MATCHED!r} or {PUBLISHED!r}.")
    return rule


def covering_rule(optimizer: str, rule: str) -> Rule:
    """The row of an optimizer; raises `rule_undefined` where the rule set `rule` has nothing for it."""
    check_rule_set(rule)
    covered = {name: row for name, row in RULES.items() if rule == MATCHED or row.published}
    if optimizer not in covered:
        names = ", ".join(sorted(covered))
        raise refusal("rule_undefined", reason=f"The {rule!r} rules cover {names}, but not {optimizer!r}.")
    return covered[optimizer]
