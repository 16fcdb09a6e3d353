"""What the rules refuse, in which order, and what they warn of."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from api_schemas import scaling
from api_schemas.errors import ScalingError
from api_schemas.scaling import CODES, RULES, derive, stability, switch

TAKE_KAPPA: dict[str, Callable[[Any], Any]] = {
    "derive": lambda kappa: derive("sgd", {}, kappa),
    "derive published": lambda kappa: derive("sgd", {}, kappa, rule="published"),
    "switch from": lambda kappa: switch("sgd", {}, kappa, 1),
    "switch to": lambda kappa: switch("sgd", {}, 1, kappa),
    "centered from": lambda kappa: scaling.centered_square_avg(2.0, 1.0, kappa, 1),
    "centered to": lambda kappa: scaling.centered_square_avg(2.0, 1.0, 1, kappa),
    "counter from": lambda kappa: scaling.rescale_counter(3, kappa, 1, integer=True),
    "counter to": lambda kappa: scaling.rescale_counter(0, 1, kappa, integer=True),
    "ema": lambda kappa: scaling.ema_momentum(0.9, kappa),
    "ema interpolation": lambda kappa: scaling.ema_interpolation(1.0, kappa),
    "ema findings": lambda kappa: scaling.ema_findings(0.9, kappa),
    "ema warm-up": lambda batch: scaling.ema_warmup(0.9, 1, batch),
    "ema half-life": lambda batch: scaling.ema_half_life(0.9, batch),
    "half-life to momentum": lambda batch: scaling.momentum_from_half_life(100, batch),
    "batchnorm": lambda kappa: scaling.batchnorm_momentum(None, kappa),
    "batchnorm forwards": lambda forwards: scaling.batchnorm_momentum(0.1, 1, forwards, 1),
    "batchnorm findings": lambda kappa: scaling.batchnorm_findings(None, kappa),
    "clip": lambda kappa: scaling.clip_norm(1.0, kappa, None),
    "second moment": lambda kappa: scaling.second_moment_input(2.0, 1.0, 2, kappa, 0.5),
    "noise batch": lambda batch: scaling.noise_scale(2.0, 1.0, 2, batch, 64),
    "noise base batch": lambda batch: scaling.noise_scale(2.0, 1.0, 2, 64, batch),
    "noise gain": lambda kappa: scaling.noise_gain(kappa, 0.5),
    "stability": lambda kappa: stability(0.1, 0.9, 0.0, False, kappa, 1.0),
}
TAKE_DECAY: dict[str, Callable[[float], Any]] = {
    "momentum": lambda decay: derive("sgd", {"momentum": decay}, 2),
    "momentum at a switch": lambda decay: switch("lars", {"momentum": decay}, 1, 2),
    "alpha": lambda decay: derive("rmsprop", {"alpha": decay}, 2),
    "beta1": lambda decay: derive("adam", {"betas": (decay, 0.999)}, 2),
    "beta2": lambda decay: derive("lion", {"betas": (0.9, decay)}, 2),
    "published beta": lambda decay: derive("adam", {"betas": (decay, 0.999)}, 2, rule="published"),
    "rho": lambda decay: scaling.ema_momentum(decay, 2),
    "rho interpolated": lambda decay: scaling.ema_interpolation(decay, 2),
    "rho0": lambda decay: scaling.ema_cosine(decay, 1, 2),
    "rho warmed up to": lambda decay: scaling.ema_warmup(decay, 1, 64),
    "rho of a finding": lambda decay: scaling.ema_findings(decay, 2),
    "rho of a half-life": lambda decay: scaling.ema_half_life(decay, 64),
    "batchnorm": lambda decay: scaling.batchnorm_momentum(decay, 2),
    "batchnorm finding": lambda decay: scaling.batchnorm_findings(decay, 2),
    "stability": lambda decay: stability(0.1, decay, 0.0, False, 1, 1.0),
}


def reason(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(ScalingError) as caught:
        function(*args, **options)
    assert "{" not in caught.value.detail
    return caught.value.reason


def codes(optimizer: str, base: dict[str, Any], kappa: float, **options: Any) -> set[str]:
    found = derive(optimizer, base, kappa, **options).findings
    assert all(finding.level == CODES[finding.code][0] and "{" not in finding.message for finding in found)
    return {finding.code for finding in found}


@pytest.mark.parametrize("kappa", [0, -1, -math.inf, math.inf, math.nan, True, False, "4", None, 10**400])
@pytest.mark.parametrize("name", TAKE_KAPPA)
def test_an_invalid_kappa_is_refused_everywhere(name: str, kappa: Any) -> None:
    assert reason(TAKE_KAPPA[name], kappa) == "kappa_invalid"


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("name", TAKE_DECAY)
def test_a_decay_out_of_range_is_refused_everywhere(name: str, decay: float) -> None:
    assert reason(TAKE_DECAY[name], decay) == "decay_out_of_range"


def test_the_edges_of_a_decay() -> None:
    assert reason(derive, "sgd", {"momentum": 1.0}, 2) == "decay_out_of_range"
    assert derive("adam", {"betas": (0.0, 1.0)}, 2).values["betas"] == (0, 1)
    assert derive("lamb", {"betas": (1.0, 1.0), "lr": 0.5}, 2, f=1).values["lr"] == 1
    assert reason(scaling.momentum_from_half_life, -1, 64) == "decay_out_of_range"


def test_published_decays_end_at_zero() -> None:
    assert derive("adam", {"betas": (0.95, 0.95)}, 20, rule="published").values["betas"] == (0, 0)
    assert reason(derive, "adam", {"betas": (0.95, 0.99)}, 20.5, rule="published") == "decay_out_of_range"
    assert reason(derive, "rmsprop", {"alpha": 0.9}, 11, rule="published") == "decay_out_of_range"


@pytest.mark.parametrize("kappa", [4, 0, math.nan])
def test_a_missing_rule_is_found_before_anything_else(kappa: float) -> None:
    nonsense = {"betas": (2, 2), "momentum": 7, "centered": True}
    assert reason(derive, "adamax", nonsense, kappa) == "rule_undefined"
    assert reason(switch, "muon", nonsense, kappa, kappa) == "rule_undefined"
    assert reason(derive, "sgd", nonsense, kappa, rule="guessed") == "rule_undefined"
    assert reason(switch, "rmsprop", nonsense, kappa, kappa) == "rule_undefined"
    assert reason(stability, 0.1, 7, 0.0, False, kappa, 1.0, "guessed") == "rule_undefined"
    for optimizer in RULES.keys() - {"sgd", "adam", "adamw", "rmsprop"}:
        assert reason(derive, optimizer, nonsense, kappa, rule="published") == "rule_undefined"


def test_radam_is_refused_where_it_would_be_plain_sgd() -> None:
    just_above, just_below = (math.log(2 / 3) / math.log(0.999) * factor for factor in (0.999, 1.001))
    assert derive("radam", {}, just_above).values["betas"][1] > 2 / 3
    assert reason(derive, "radam", {}, just_below) == "rectification_lost"
    assert reason(switch, "radam", {}, 1, just_below) == "rectification_lost"
    assert reason(switch, "radam", {}, just_below, 1) == "rectification_lost"


def test_the_shards_that_an_estimate_needs() -> None:
    assert reason(scaling.second_moment_input, 2.0, 1.0, 0, 2, 0.5) == "shards_invalid"
    assert reason(scaling.noise_scale, 2.0, 1.0, 1, 64, 64) == "shards_invalid"


@pytest.mark.parametrize("f", [-0.1, 1.1, math.nan])
def test_a_noise_fraction_is_a_fraction(f: float) -> None:
    with pytest.raises(ValueError, match="noise fraction"):
        derive("adam", {}, 2, f=f)
    with pytest.raises(ValueError, match="noise fraction"):
        scaling.clip_norm(1.0, 2, f)


def test_an_unknown_second_moment_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="second_moment"):
        derive("adam", {}, 2, second_moment="measured")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam", "radam", "lamb", "rmsprop"])
def test_past_noise_scale(optimizer: str) -> None:
    assert "past_noise_scale" in codes(optimizer, {}, 3.1, f=0.75)
    assert "past_noise_scale" not in codes(optimizer, {}, 2.9, f=0.75)
    assert not {"past_noise_scale"} & (codes(optimizer, {}, 8, f=1) | codes(optimizer, {}, 8, f=0))
    if RULES[optimizer].published:
        assert codes(optimizer, {}, 8, f=0.5, rule="published") == set()


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adagrad", "lion"])
def test_no_second_moment_no_warning_of_one(optimizer: str) -> None:
    assert codes(optimizer, {}, 100, f=0.5) <= {"momentum_lost"}


def test_v_few_samples() -> None:
    assert codes("adamw", {"betas": (0.9, 0.95)}, 4.1) == {"v_few_samples"}
    assert codes("adamw", {"betas": (0.9, 0.95)}, 3.9) == set()
    assert codes("rmsprop", {"alpha": 0.9}, 3) == {"v_few_samples"}
    assert codes("rmsprop", {"alpha": 0.9}, 3, rule="published") == {"v_few_samples"}


def test_per_worker_silences_only_what_it_cures() -> None:
    base = {"betas": (0.9, 0.95)}
    assert codes("adam", base, 64, f=0.5, second_moment="per_worker") == {"momentum_lost"}
    everything = {"momentum_lost", "past_noise_scale", "v_few_samples"}
    assert codes("nadam", base, 64, f=0.5, second_moment="per_worker") == everything
    published = {**base, "betas": (0.95, 0.95)}
    assert codes("adam", published, 8, f=0.5, rule="published", second_moment="per_worker") == {"v_few_samples"}


@pytest.mark.parametrize(("optimizer", "base"), [("sgd", {"momentum": 0.9}), ("lion", {}), ("adam", {})])
def test_momentum_lost(optimizer: str, base: dict[str, Any]) -> None:
    assert codes(optimizer, base, 21, second_moment="per_worker") == set()
    assert codes(optimizer, base, 22, second_moment="per_worker") == {"momentum_lost"}


def test_no_momentum_none_lost() -> None:
    assert codes("sgd", {"momentum": 0.0}, 1e4) == set()
    assert codes("sgd", {"momentum": 0.9}, 1e4, rule="published") == set()


def test_averages_that_forget_within_one_step() -> None:
    assert [finding.code for finding in scaling.ema_findings(0.9, 11)] == ["ema_coarse"]
    assert [finding.code for finding in scaling.batchnorm_findings(0.1, 11)] == ["bn_coarse"]
    assert scaling.ema_findings(0.9, 9) == scaling.batchnorm_findings(0.1, 9) == ()
    assert scaling.batchnorm_findings(None, 1000) == ()


@pytest.mark.parametrize(
    ("lambda_max", "code"),
    [
        (9.0, None),
        (9.49, None),
        (9.51, "step_coarse"),
        (37.99, "step_coarse"),
        (38.01, "step_unstable"),
        (math.nan, "step_unstable"),
    ],
)
def test_stability_at_the_base_batch(lambda_max: float, code: str | None) -> None:
    found = stability(0.1, 0.9, 0.0, False, 1, lambda_max)
    assert found.bound == pytest.approx(38)
    assert found.code == code
    assert (found.finding and found.finding.code) == code


def test_a_step_at_the_bound_is_unstable_and_one_at_a_quarter_of_it_not_coarse() -> None:
    assert stability(0.5, 0.0, 0.0, False, 2, 2.0).code == "step_unstable"
    assert stability(0.5, 0.0, 0.0, False, 1, 1.0).code is None


def test_what_the_stability_of_a_step_depends_on() -> None:
    plain = stability(0.1, 0.9, 0.0, False, 4, 1.0)
    averaged = stability(0.1, 0.9, 0.9, False, 4, 1.0)
    decayed = stability(0.1, 0.9, 0.0, False, 4, 0.75, weight_decay=0.25)
    assert averaged.x == pytest.approx(plain.x / 10)
    assert averaged.bound == decayed.bound == plain.bound
    assert decayed.x == plain.x
    assert stability(0.1, 0.9, 0.0, True, 4, 1.0).bound == pytest.approx(plain.bound / (1 + 2 * 0.9**4))
    assert stability(0.1, 0.9, 0.0, False, 4, 1.0, "published").bound == pytest.approx(38)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(("share", "diverges"), [(0.99, False), (1.01, True)])
def test_the_bound_is_where_descent_on_a_parabola_diverges(
    mu: float, nesterov: bool, share: float, diverges: bool
) -> None:
    """torch's update, by hand; the learning rate is chosen to put x at a share of the bound."""
    lr = share * stability(0.1, mu, 0.0, nesterov, 1, 1.0).bound * (1 - mu)
    weight, buffer = 1.0, 0.0
    for _ in range(4000):
        gradient = weight
        buffer = mu * buffer + gradient
        weight -= lr * (gradient + mu * buffer if nesterov else buffer)
        if abs(weight) > 1e6:
            break
    assert (abs(weight) > 1e6) == diverges


def test_a_refusal_crosses_processes() -> None:
    with pytest.raises(ScalingError) as caught:
        derive("adamax", {}, 2)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.reason, again.detail) == (ScalingError, "rule_undefined", caught.value.detail)


def test_every_public_name_exists() -> None:
    assert scaling.__all__ == sorted(scaling.__all__, key=lambda name: (name[0].islower(), not name.isupper(), name))
    assert all(hasattr(scaling, name) for name in scaling.__all__)


def test_the_rules_import_nothing_heavy() -> None:
    script = (
        "import sys, api_schemas.scaling; print(*{'torch', 'numpy', 'ray', 'fastapi', 'sqlmodel'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []
