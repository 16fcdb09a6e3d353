"""What holds for every optimizer, batch size and noise fraction. New rows of RULES are tested because they exist."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from api_schemas import scaling
from api_schemas.errors import ScalingError
from api_schemas.scaling import RULES, derive, switch

# Bases that reach every branch of a row: with momentum, decay, and each flag that changes a rule.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"momentum": 0.9, "weight_decay": 1e-4}, {"momentum": 0.9, "dampening": 0.9}, {"momentum": 0.999}],
    "lars": [{"momentum": 0.9, "weight_decay": 1e-6}, {"momentum": 0.9, "dampening": 0.9}],
    "adam": [{"amsgrad": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"betas": (0.0, 0.99)}],
    "nadam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "radam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}, {"betas": (0.9, 0.9999)}],
    "rmsprop": [{"momentum": 0.9}, {"centered": True, "momentum": 0.9}],
    "adagrad": [{"lr_decay": 1e-3, "initial_accumulator_value": 0.1}],
}
BASES = [(name, base) for name in RULES for base in [{}, *VARIANTS.get(name, [])]]
PUBLISHED = [(name, base) for name, base in BASES if RULES[name].published]
WITH_FACTORS = [(name, base) for name, base in BASES if not base.get("centered")]

kappas = st.floats(math.log(1e-3), math.log(1e4)).map(math.exp)
small_kappas = st.floats(0.1, 8)
fractions = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
decays = st.floats(0, 1)
modes = st.sampled_from(["given_f", "per_worker"])
quick = settings(max_examples=25, deadline=None)


def flat(values: Iterable[Any]) -> list[float]:
    """Every number of `values`, with tuples taken apart."""
    return [float(n) for value in values for n in (value if isinstance(value, tuple) else (value,))]


def or_rectification_lost(function: Any, *args: Any, **options: Any) -> Any:
    """The result; a refused RAdam is no example for a property."""
    try:
        return function(*args, **options)
    except ScalingError as error:
        assume(error.reason != "rectification_lost")
        raise


@pytest.mark.parametrize(("optimizer", "base"), BASES)
@given(kappa=kappas, f=fractions, mode=modes)
@quick
def test_hyperparameters_are_finite_and_decays_stay_decays(
    optimizer: str, base: dict[str, Any], kappa: float, f: float, mode: str
) -> None:
    values = or_rectification_lost(derive, optimizer, base, kappa, f=f, second_moment=mode).values
    assert all(math.isfinite(number) and number >= 0 for number in flat(values.values()))
    decays = [values.get("momentum", 0.0), values.get("alpha", 0.0), *values.get("betas", ())]
    assert all(0 <= decay <= 1 for decay in decays)


@pytest.mark.parametrize(("optimizer", "base"), WITH_FACTORS)
@given(old=kappas, new=kappas, f=fractions, mode=modes)
@quick
def test_factors_are_finite_and_positive(
    optimizer: str, base: dict[str, Any], old: float, new: float, f: float, mode: str
) -> None:
    factors = or_rectification_lost(switch, optimizer, base, old, new, f=f, second_moment=mode)
    assert factors
    assert all(math.isfinite(factor) and factor > 0 for factor in factors.values())


@pytest.mark.parametrize(("optimizer", "base"), WITH_FACTORS)
@given(path=st.lists(small_kappas, min_size=2, max_size=5), f=fractions, mode=modes)
@quick
def test_factors_compose(optimizer: str, base: dict[str, Any], path: list[float], f: float, mode: str) -> None:
    """1 -> 4 -> 2 -> 1 leaves the state where it was, and any path is worth its two ends."""
    hops = [switch(optimizer, base, old, new, f=f, second_moment=mode) for old, new in pairwise(path)]
    direct = switch(optimizer, base, path[0], path[-1], f=f, second_moment=mode)
    assert {name: math.prod(hop[name] for hop in hops) for name in direct} == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize(
    ("optimizer", "base", "rule"),
    [(*pair, rule) for pair in BASES for rule in ("matched", "published") if rule == "matched" or pair in PUBLISHED],
)
@given(f=fractions, mode=modes)
@quick
def test_kappa_one_is_the_base_run_to_the_last_bit(
    optimizer: str, base: dict[str, Any], rule: str, f: float, mode: str
) -> None:
    complete = {**RULES[optimizer].defaults, **base}
    assert derive(optimizer, base, 1, f=f, rule=rule, second_moment=mode).values == complete


@pytest.mark.parametrize(("optimizer", "base"), WITH_FACTORS)
@given(kappa=small_kappas, f=fractions, mode=modes)
@quick
def test_no_change_of_kappa_changes_no_state(
    optimizer: str, base: dict[str, Any], kappa: float, f: float, mode: str
) -> None:
    assert set(switch(optimizer, base, kappa, kappa, f=f, second_moment=mode).values()) == {1.0}


@pytest.mark.parametrize(("optimizer", "base"), BASES)
@given(first=st.floats(0.5, 8), second=st.floats(0.5, 8), f=fractions)
@quick
def test_any_batch_may_be_called_the_base(
    optimizer: str, base: dict[str, Any], first: float, second: float, f: float
) -> None:
    """Re-tuned at kappa = first, with the noise fraction of that batch, the run at first * second is the same."""
    there = derive(optimizer, base, first, f=f).values
    f_there = f / first / scaling.noise_gain(first, f)
    direct = derive(optimizer, base, first * second, f=f).values
    in_two_hops = derive(optimizer, there, second, f=f_there).values
    assert flat(in_two_hops.values()) == pytest.approx(flat(direct.values()), rel=1e-9)


@pytest.mark.parametrize(("optimizer", "base"), BASES)
def test_the_base_is_only_read(optimizer: str, base: dict[str, Any]) -> None:
    before = dict(base)
    defaults = dict(RULES[optimizer].defaults)
    first = derive(optimizer, base, 4)
    derive(optimizer, base, 2)
    assert derive(optimizer, base, 4) == first
    assert (base, RULES[optimizer].defaults) == (before, defaults)


@pytest.mark.parametrize("optimizer", RULES)
def test_per_worker_is_f_zero_where_it_exists_and_the_given_f_elsewhere(optimizer: str) -> None:
    f_that_counts = 0.0 if RULES[optimizer].per_worker else 0.7
    values = derive(optimizer, {}, 4, f=0.7, second_moment="per_worker").values
    assert values == derive(optimizer, {}, 4, f=f_that_counts).values


@pytest.mark.parametrize(("optimizer", "base"), PUBLISHED)
def test_the_papers_leave_state_alone(optimizer: str, base: dict[str, Any]) -> None:
    factors = switch(optimizer, base, 1, 8, rule="published")
    assert factors
    assert set(factors.values()) == {1.0}


def test_keys_without_a_rule_pass_as_they_are() -> None:
    base = {"betas": [0.9, 0.99], "foreach": None, "maximize": True, "weight_decay": 1}
    values = derive("adam", base, 2).values
    assert (values["foreach"], values["maximize"], values["weight_decay"]) == (None, True, 1.0)
    assert isinstance(values["betas"], tuple)


@given(rho=st.floats(1e-3, 1 - 1e-9), kappa=small_kappas, batch=st.floats(1, 1e5))
@quick
def test_the_half_life_of_an_ema_in_samples_does_not_depend_on_kappa(rho: float, kappa: float, batch: float) -> None:
    half_life = scaling.ema_half_life(rho, batch)
    at_kappa = scaling.ema_half_life(scaling.ema_momentum(rho, kappa), kappa * batch)
    # rho^kappa is a double: near 1 its own rounding moves the half-life.
    assert at_kappa == pytest.approx(half_life, rel=1e-9 + 1e-15 / (1 - rho) / kappa)
    assert scaling.momentum_from_half_life(half_life, batch) == pytest.approx(rho, rel=1e-12)


def test_the_half_life_of_the_fixed_points() -> None:
    assert scaling.ema_half_life(0, 64) == 0
    assert scaling.ema_half_life(1, 64) == math.inf
    assert (scaling.momentum_from_half_life(0, 64), scaling.momentum_from_half_life(math.inf, 64)) == (0, 1)


@given(rho=decays, kappa=kappas)
@quick
def test_interpolation_weights_sum_to_one(rho: float, kappa: float) -> None:
    c_old, c_new, decay = scaling.ema_interpolation(rho, kappa)
    assert c_old + c_new + decay == pytest.approx(1, abs=1e-12)
    assert c_new >= 0
    if kappa >= 1:
        assert c_old >= -1e-12


@pytest.mark.parametrize("kappa", [1, 2, 5, 64])
@pytest.mark.parametrize("rho", [0.0, 1e-12, 0.3, 0.5, 0.9, 0.9999, 1 - 1e-9, 1 - 2**-50])
def test_interpolation_is_kappa_base_updates_along_a_line(rho: float, kappa: int) -> None:
    """The base run's update after each of kappa equal steps from 0 to 1, in exact arithmetic."""
    ema = Fraction(0)
    for j in range(1, kappa + 1):
        ema = Fraction(rho) * ema + (1 - Fraction(rho)) * Fraction(j, kappa)
    assert scaling.ema_interpolation(rho, kappa).c_new == pytest.approx(float(ema), rel=1e-13)


@given(samples=st.floats(0, 2e6), later=st.floats(0, 2e6), rho0=decays)
@quick
def test_the_cosine_of_rho_only_rises(samples: float, later: float, rho0: float) -> None:
    first, second = (scaling.ema_cosine(rho0, s, 1e6) for s in sorted([samples, later]))
    assert rho0 <= first <= second + 1e-15
    assert second <= 1


@given(samples=st.floats(0, 2e6), warmup=st.floats(0, 2e6), total=st.floats(0, 1e6))
@quick
def test_the_multiplier_of_the_learning_rate_is_a_fraction(samples: float, warmup: float, total: float) -> None:
    assert 0 <= scaling.lr_multiplier(samples, warmup, total) <= 1


@given(momentum=decays, kappa=kappas, forwards=st.integers(1, 16))
@quick
def test_batchnorm_keeps_what_is_left_after_the_same_samples(momentum: float, kappa: float, forwards: int) -> None:
    scaled = scaling.batchnorm_momentum(momentum, kappa, forwards, 1)
    assert scaled is not None
    assert 1 - scaled == pytest.approx((1 - momentum) ** (kappa / forwards), abs=1e-12)


@given(count=st.integers(0, 10**6), old=small_kappas, new=small_kappas)
@quick
def test_a_counter_that_counts_never_returns_to_zero(count: int, old: float, new: float) -> None:
    rescaled = scaling.rescale_counter(count, old, new, integer=True)
    assert isinstance(rescaled, int)
    assert (rescaled > 0) == (count > 0)
    assert abs(rescaled - scaling.rescale_counter(count, old, new, integer=False)) <= 1


@given(
    signal=st.floats(0.01, 10), noise=st.floats(0.01, 10), sizes=st.lists(st.integers(1, 64), min_size=2, max_size=6),
    base_batch=st.integers(1, 64),
)  # fmt: skip
@quick
def test_the_estimates_are_unbiased_for_unequal_shards(
    signal: float, noise: float, sizes: list[int], base_batch: int
) -> None:
    """Fed with the expectations of their inputs, both return the quantity that they estimate."""
    shards, batch = len(sizes), sum(sizes)
    assume(batch >= base_batch)
    mean_sq = sum(n / batch * (signal + noise / n) for n in sizes)
    sq_mean = signal + noise / batch
    fed = scaling.second_moment_input(mean_sq, sq_mean, shards, batch / base_batch, 0.5)
    assert fed == pytest.approx(signal + noise / base_batch, rel=1e-9)
    measured = scaling.noise_scale(mean_sq, sq_mean, shards, batch, base_batch)
    assert measured.trace_sigma == pytest.approx(noise, rel=1e-9)
    assert measured.grad_sqnorm == pytest.approx(signal, rel=1e-9)
    assert measured.noise_batch == pytest.approx(noise / signal, rel=1e-9)
    assert measured.noise_fraction == pytest.approx(noise / base_batch / (signal + noise / base_batch), rel=1e-9)


def test_noise_of_nothing_and_of_noise_alone() -> None:
    assert scaling.noise_scale(0, 0, 2, 64, 64) == (0, 0, 1, math.inf)
    assert scaling.noise_scale(10, 1, 2, 64, 64)[1:] == (0, 1, math.inf)


@given(kappa=kappas, f=fractions)
@quick
def test_clipping_follows_the_norm_of_the_gradient_where_it_is_known(kappa: float, f: float) -> None:
    assert scaling.clip_norm(2.0, kappa, f) == 2.0 * math.sqrt(scaling.noise_gain(kappa, f))
    assert scaling.clip_norm(2.0, kappa, f, measured=False) == scaling.clip_norm(2.0, kappa, None) == 2.0


@given(square=st.floats(0, 100), mean=st.floats(-10, 10), old=small_kappas, new=small_kappas)
@quick
def test_the_centered_variance_never_turns_negative(square: float, mean: float, old: float, new: float) -> None:
    assume(square >= mean * mean)
    assert scaling.centered_square_avg(square, mean, old, new) >= mean * mean
