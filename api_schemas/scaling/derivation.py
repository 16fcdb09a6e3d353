"""`derive` and `switch`: an optimizer's hyperparameters at kappa, and what becomes of its state between two kappas.

Both start from the base values every time. Nothing is compounded and no live optimizer is read, so any path of batch
sizes that ends at kappa gives the same numbers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api_schemas.scaling.decay import check_decay, check_momentum
from api_schemas.scaling.findings import Finding, finding, refusal
from api_schemas.scaling.rules import MATCHED, PUBLISHED, Rule, Values, covering_rule
from api_schemas.scaling.scale import Scale, check_fraction, check_kappa

GIVEN_F, PER_WORKER = "given_f", "per_worker"


@dataclass(frozen=True, slots=True)
class Derived:
    """Hyperparameters at one batch size, and what a user should know about them."""

    values: dict[str, Any]  # by torch's names; `betas` a tuple; keys without a rule as they were given
    findings: tuple[Finding, ...]  # warnings and notes


def derive(
    optimizer: str,
    base: Mapping[str, Any],
    kappa: float,
    *,
    f: float = 1.0,
    rule: str = MATCHED,
    second_moment: str = GIVEN_F,
) -> Derived:
    """The hyperparameters that make a step at batch kappa * B0 worth kappa steps of the base run.

    `optimizer` is a key of RULES, `base` holds torch's names and the values tuned at B0 (those left out take the
    constructor's defaults). `f` is the noise fraction at B0, in [0, 1]. `rule` is "matched" (derived for this project)
    or "published" (arXiv 1706.02677 and 2205.10287). `second_moment` is "given_f", or "per_worker" for base-batch
    second moments fed to Adam's v; optimizers without it use f, and "published" uses neither.

    Raises ScalingError with reason `rule_undefined` (looked for first), `kappa_invalid`, `decay_out_of_range` or
    `rectification_lost`; ValueError for an f or a second_moment that does not exist.
    """
    row = covering_rule(optimizer, rule)
    kappa = check_kappa(kappa)
    values = _complete(row, base)
    scale = _scale(row, kappa, f, second_moment)
    # Not None for a published rule: `covering_rule` has seen to it.
    changed = row.published(values, kappa) if rule == PUBLISHED and row.published else row.matched(values, scale)
    fed = rule == MATCHED and row.per_worker and second_moment == PER_WORKER
    return Derived(values={**values, **changed}, findings=tuple(_findings(row, values, scale, rule, fed=fed)))


def switch(
    optimizer: str,
    base: Mapping[str, Any],
    kappa_old: float,
    kappa_new: float,
    *,
    f: float = 1.0,
    rule: str = MATCHED,
    second_moment: str = GIVEN_F,
) -> dict[str, float]:
    """The factor of every state tensor and counter, by torch's state names, when kappa_old becomes kappa_new.

    To be applied together with the hyperparameters of `derive`, between two steps. Factors compose: 1 -> 4 -> 2 is
    1 -> 2. One `f`, the newest, stands for both sides. With "published" all are 1: the papers leave state alone.

    Arguments and errors as for `derive`; `rule_undefined` too for centered RMSProp, whose square_avg has no factor (use
    `centered_square_avg`). Derived for this project.
    """
    row = covering_rule(optimizer, rule)
    if rule == MATCHED and not row.has_factors({**row.defaults, **base}):
        reason = f"No factor converts the state of this {optimizer!r}: use centered_square_avg for its square_avg."
        raise refusal("rule_undefined", reason=reason)
    kappas = check_kappa(kappa_old), check_kappa(kappa_new)
    values = _complete(row, base)
    old, new = (_scale(row, kappa, f, second_moment) for kappa in kappas)
    if rule == PUBLISHED:
        return dict.fromkeys(row.factors(values, new, new), 1.0)
    return row.factors(values, old, new)


def _complete(row: Rule, base: Mapping[str, Any]) -> dict[str, Any]:
    """The base with defaults filled in, numbers as floats, and its decays checked."""
    values = {name: _plain(value) for name, value in {**row.defaults, **base}.items()}
    for i, beta in enumerate(values.get("betas", ()), start=1):
        check_decay(f"beta{i}", beta)
    if "alpha" in values:
        check_decay("alpha", values["alpha"])
    if "momentum" in values:
        check_momentum("momentum", values["momentum"])
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(float(item) for item in value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _scale(row: Rule, kappa: float, f: float, second_moment: str) -> Scale:
    """A second moment fed at the base batch does not change with kappa, which is what f = 0 says."""
    if second_moment not in (GIVEN_F, PER_WORKER):
        raise ValueError(f"second_moment is {second_moment!r}; it has to be {GIVEN_F!r} or {PER_WORKER!r}")
    f = check_fraction(f)
    return Scale(kappa, 0.0 if second_moment == PER_WORKER and row.per_worker else f)


def _findings(row: Rule, base: Values, scale: Scale, rule: str, *, fed: bool) -> Iterator[Finding]:
    if row.second_moment and not fed:
        yield from _second_moment_findings(row.second_moment(base), scale, rule)
    if row.momentum and rule == MATCHED:
        decay = row.momentum(base)
        left = decay**scale.kappa
        if decay > 0 and left < 0.1:
            yield finding("momentum_lost", kappa=scale.kappa, decay=decay, left=left)


def _second_moment_findings(decay: float, scale: Scale, rule: str) -> Iterator[Finding]:
    kappa, f = scale.kappa, scale.f
    if rule == MATCHED and 0 < f < 1 and kappa > f / (1 - f):
        yield finding("past_noise_scale", kappa=kappa, limit=f / (1 - f))
    if kappa * (1 - decay) > 0.2:
        yield finding("v_few_samples", kappa=kappa, decay=decay)
