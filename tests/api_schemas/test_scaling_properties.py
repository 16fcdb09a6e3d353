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


@pytest.mark.parametrize(("optimizer", "base"), PUBLISHED)
@given(kappa=kappas)
@quick
def test_published_hyperparameters_are_finite_or_refused(optimizer: str, base: dict[str, Any], kappa: float) -> None:
    complete = {**RULES[optimizer].defaults, **base}
    fastest = min(flat([complete.get("alpha", 1.0), complete.get("betas", 1.0)]))
    assume(abs(kappa * (1 - fastest) - 1) > 1e-9)  # where rounding decides
    if kappa * (1 - fastest) > 1:
        with pytest.raises(ScalingError) as caught:
            derive(optimizer, base, kappa, rule="published")
        assert caught.value.reason == "decay_out_of_range"
        return
    values = derive(optimizer, base, kappa, rule="published").values
    assert all(math.isfinite(number) and number >= 0 for number in flat(values.values()))


@given(decay=decays, kappa=kappas, f=fractions, shards=st.integers(1, 64))
@quick
def test_everything_else_is_finite(decay: float, kappa: float, f: float, shards: int) -> None:
    batchnorm = scaling.batchnorm_momentum(decay, kappa, shards, 1)
    assert batchnorm is not None
    assert all(0 <= number <= 1 for number in (scaling.ema_momentum(decay, kappa), batchnorm))
    assert all(math.isfinite(number) for number in scaling.ema_interpolation(decay, kappa))
    positive = [
        scaling.noise_gain(kappa, f),
        scaling.clip_norm(1.0, kappa, f),
        scaling.second_moment_input(2.0, 1.0, shards, kappa, f),
        scaling.centered_square_avg(2.0, 1.0, kappa, 1.0),
        scaling.rescale_counter(1, kappa, 1.0, integer=False),
        scaling.rescale_counter(1, 1.0, kappa, integer=True),
    ]
    assert all(math.isfinite(number) and number > 0 for number in positive)
    assume(decay < 1)
    step = scaling.stability(0.1, decay, 0.0, True, kappa, 1.0)
    assert math.isfinite(step.x)
    assert math.isfinite(step.bound)
    assert step.bound > 0


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


@given(decay=decays, f=fractions, shards=st.integers(1, 64))
@quick
def test_kappa_one_is_the_base_run_for_everything_else(decay: float, f: float, shards: int) -> None:
    assert scaling.ema_momentum(decay, 1) == decay
    assert scaling.ema_interpolation(decay, 1) == pytest.approx((0, 1 - decay, decay), abs=1e-15)
    assert scaling.batchnorm_momentum(decay, 1) == pytest.approx(decay, rel=1e-15)
    assert scaling.clip_norm(2.0, 1, f) == 2
    assert scaling.second_moment_input(2.0, 1.3, shards, 1, f) == 1.3


@pytest.mark.parametrize(("optimizer", "base"), WITH_FACTORS)
@given(kappa=small_kappas, f=fractions, mode=modes)
@quick
def test_no_change_of_kappa_changes_no_state(
    optimizer: str, base: dict[str, Any], kappa: float, f: float, mode: str
) -> None:
    assert set(switch(optimizer, base, kappa, kappa, f=f, second_moment=mode).values()) == {1.0}


def second_moment(state: dict[str, float]) -> float:
    """That of the state, where it has one."""
    return math.prod(state.get(name, 1.0) for name in ("exp_avg_sq", "square_avg", "sum"))


def speed(optimizer: str, values: dict[str, Any], kappa: float, f: float, state: dict[str, float]) -> float:
    """Displacement per sample by a state whose tensors are so many times those of a reference."""
    if values.get("momentum"):
        return float(values["lr"] * state["momentum_buffer"] / kappa)
    # LARS divides by the norm of the gradient itself, which nothing stores.
    square = scaling.noise_gain(kappa, f) if optimizer == "lars" else second_moment(state)
    return float(values["lr"] * state.get("exp_avg", 1.0) / math.sqrt(square) / kappa)


@pytest.mark.parametrize(("optimizer", "base"), [pair for pair in WITH_FACTORS if pair[0] != "lamb"])
@given(old=small_kappas, new=small_kappas, f=fractions, mode=modes)
@quick
def test_what_the_state_holds_moves_the_weights_as_far_after_a_switch_as_before(
    optimizer: str, base: dict[str, Any], old: float, new: float, f: float, mode: str
) -> None:
    """LAMB's trust ratio cannot be told from its state; its reference cases have to do."""
    options: dict[str, Any] = {"f": f, "second_moment": mode}
    before, after = (derive(optimizer, base, kappa, **options).values for kappa in (old, new))
    factors = switch(optimizer, base, old, new, **options)
    unit = dict.fromkeys(factors, 1.0)
    reached = speed(optimizer, after, new, f, factors)
    assert reached == pytest.approx(speed(optimizer, before, old, f, unit), rel=1e-9)
    if "eps" in before:
        assert after["eps"] / before["eps"] == pytest.approx(math.sqrt(second_moment(factors)), rel=1e-9)
    for rate in {"momentum_decay", "lr_decay"} & before.keys():
        assert after[rate] / new == pytest.approx(before[rate] / old, rel=1e-12)
    if before.get("initial_accumulator_value"):
        filled = before["initial_accumulator_value"] * factors["sum"]
        assert after["initial_accumulator_value"] == pytest.approx(filled, rel=1e-12)


def test_without_momentum_there_is_no_buffer_to_multiply() -> None:
    for optimizer in ("sgd", "lars", "rmsprop"):
        assert switch(optimizer, {}, 1, 8, f=0.5)["momentum_buffer"] == 1


def test_a_buffer_that_is_an_average_is_kept_and_stays_one() -> None:
    base = {"lr": 1, "momentum": 0.9, "dampening": 0.9}
    values = derive("sgd", base, 2).values
    assert (values["lr"], values["momentum"], values["dampening"]) == pytest.approx((2, 0.81, 0.81))
    assert switch("sgd", base, 1, 8) == {"momentum_buffer": 1}


def test_products_of_decays_and_averages_of_gradients_are_kept() -> None:
    assert switch("nadam", {}, 1, 8)["mu_product"] == 1
    assert {switch(optimizer, {}, 1, 8)["exp_avg"] for optimizer in ("adam", "lamb", "lion")} == {1}


def test_steps_are_counted_in_samples() -> None:
    for optimizer in ("adam", "adamw", "nadam", "radam", "lamb", "rmsprop", "adagrad"):
        assert switch(optimizer, {}, 2, 8)["step"] == 0.25


@pytest.mark.parametrize("kappa", [0.5, 4, 64])
def test_lamb_keeps_the_share_of_the_trust_ratio_that_is_noise(kappa: float) -> None:
    """The variance of an average of independent noise, summed term by term."""

    def variance(decay: float, noise: float) -> float:
        return sum(((1 - decay) * decay**age) ** 2 * noise for age in range(2000))

    f, beta1 = 0.7, 0.9
    root = math.sqrt((1 - f + variance(beta1**kappa, f / kappa)) / (1 - f + variance(beta1, f)))
    assert derive("lamb", {"lr": 1}, kappa, f=f).values["lr"] == pytest.approx(kappa * root, rel=1e-9)


@pytest.mark.parametrize("f", [0.0, 0.3, 1.0])
def test_centered_rmsprop_divides_by_a_variance_whatever_the_noise(f: float) -> None:
    plain = derive("rmsprop", {"momentum": 0.9}, 4, f=1.0).values
    assert derive("rmsprop", {"momentum": 0.9, "centered": True}, 4, f=f).values == {**plain, "centered": True}


def test_lion_takes_the_root_until_nothing_of_its_average_is_left() -> None:
    assert derive("lion", {"betas": (0.9, 0.99)}, 4).values["betas"][0] == pytest.approx(0.8)
    assert derive("lion", {"betas": (0.9, 0.99)}, 101).values["betas"][0] == 0


def test_what_the_papers_say() -> None:
    assert derive("sgd", {"lr": 1, "momentum": 0.9}, 4, rule="published").values["lr"] == 4
    adam = derive("adam", {"lr": 1, "eps": 1, "betas": (0.9, 0.99)}, 4, rule="published").values
    assert (adam["lr"], adam["eps"], *adam["betas"]) == pytest.approx((2, 0.5, 0.6, 0.96))
    rmsprop = derive("rmsprop", {"lr": 1, "eps": 1, "momentum": 0.9}, 4, rule="published").values
    assert [rmsprop[name] for name in ("lr", "eps", "alpha", "momentum")] == pytest.approx([2, 0.5, 0.96, 0.9])


def test_rows_that_torch_lacks_take_the_defaults_of_their_papers() -> None:
    """Not weight decay, which every code sets otherwise."""
    lamb, lion, lars = (derive(name, {}, 1).values for name in ("lamb", "lion", "lars"))
    assert (lamb["lr"], lamb["betas"], lamb["eps"], lamb["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-6, 0)
    assert (lion["lr"], lion["betas"], lion["weight_decay"]) == (1e-4, (0.9, 0.99), 0)
    assert (lars["lr"], lars["momentum"], lars["weight_decay"]) == (1.0, 0, 0)


@pytest.mark.parametrize("gap", [1e-6, 1e-12, 2**-52])
def test_a_momentum_close_to_one_loses_no_digits(gap: float) -> None:
    momentum = 1 - gap
    exact = sum(Fraction(momentum) ** i for i in range(8))
    assert derive("sgd", {"lr": 1, "momentum": momentum}, 8).values["lr"] == pytest.approx(8 * float(exact), rel=1e-14)


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


@given(rho=st.floats(1e-3, 1 - 1e-9), kappa=kappas, batch=st.floats(1, 1e5))
@quick
def test_the_half_life_of_an_ema_in_samples_does_not_depend_on_kappa(rho: float, kappa: float, batch: float) -> None:
    assume(rho**kappa > 1e-300)  # what is left of a smaller one is no number with 15 digits
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


def test_the_multiplier_of_the_learning_rate_over_a_run() -> None:
    at = [scaling.lr_multiplier(samples, 10, 30) for samples in (0, 5, 10, 20, 30, 31)]
    assert at == pytest.approx([0, 0.5, 1, 0.5, 0, 0], abs=1e-15)
    assert at[-2:] == [0, 0]
    assert scaling.lr_multiplier(0, 0, 30) == 1
    assert scaling.lr_multiplier(30, 40, 30) == 0


def test_the_cosine_of_rho_at_its_quarters() -> None:
    at = [scaling.ema_cosine(0.9, samples, 4) for samples in range(6)]
    middle = math.sqrt(0.5) / 2
    assert at == pytest.approx([0.9, 1 - 0.1 * (0.5 + middle), 0.95, 1 - 0.1 * (0.5 - middle), 1, 1], rel=1e-14)


def test_the_warm_up_of_an_ema_counts_base_steps() -> None:
    at = [scaling.ema_warmup(0.9, samples, 64) for samples in (0, 32, 640, 5120, 6400)]
    assert at == pytest.approx([1 / 10, 1.5 / 10.5, 11 / 20, 0.9, 0.9], rel=1e-15)
    assert [scaling.ema_warmup(rho, 0, 64) for rho in (0, 1)] == [0, 0.1]


@pytest.mark.parametrize("kappa", [2, 4, 8])
def test_a_resize_does_not_move_the_warm_up_of_an_ema(kappa: int) -> None:
    """What is left of the first weights after 64 base steps, up to where within a step rho is read."""
    left = math.prod(
        scaling.ema_momentum(scaling.ema_warmup(0.999, (step + 0.5) * kappa * 32, 32), kappa)
        for step in range(8 // kappa, 64 // kappa)
    )
    base = math.prod(scaling.ema_warmup(0.999, (step + 0.5) * 32, 32) for step in range(8, 64))
    assert left == pytest.approx(base, rel=0.15)


def test_the_fixed_points_of_averages() -> None:
    assert [scaling.ema_momentum(rho, 7) for rho in (0, 1)] == [0, 1]
    assert [scaling.batchnorm_momentum(momentum, 7, 2, 1) for momentum in (0, 1)] == [0, 1]


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


@pytest.mark.parametrize(
    ("count", "old", "new", "want"),
    [(1, 1, 1000, 1), (0, 1, 1000, 0), (5, 1, 2, 2), (7, 1, 2, 4), (8, 1, 3, 3), (3, 3, 3, 3), (100, 2, 8, 25)],
)
def test_integer_counters_round_half_to_even_and_stop_at_one(count: int, old: float, new: float, want: int) -> None:
    assert scaling.rescale_counter(count, old, new, integer=True) == want


def test_a_spread_is_never_negative() -> None:
    """Rounding alone puts the mean of the squares below the square of the mean."""
    assert scaling.second_moment_input(1.0, 1.1, 2, 8, 0.5) == 1.1
    assert scaling.noise_scale(1.0, 1.1, 2, 64, 64)[:3] == (0, 1.1, 0)


def test_the_spread_counts_only_where_it_cannot_turn_v_negative() -> None:
    assert scaling.second_moment_input(2.0, 1.0, 4, 7, 0.5) == 3
    for shards, kappa in [(4, 0.5), (1, 0.5), (1, 2)]:
        assert scaling.second_moment_input(2.0, 1.0, shards, kappa, 0.5) == 1 / scaling.noise_gain(kappa, 0.5)


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
