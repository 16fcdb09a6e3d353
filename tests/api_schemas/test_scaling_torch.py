"""The rules against torch's own optimizers: names, defaults, and what a step does before and after a switch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from api_schemas import scaling
from api_schemas.scaling import RULES, derive, switch

IN_TORCH = [name for name, rule in RULES.items() if rule.torch_class]

SEGMENT = 480  # base steps; a multiple of every kappa on the path
PATH = (1, 4, 2, 8, 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torch_class(optimizer: str) -> type[torch.optim.Optimizer]:
    return getattr(torch.optim, str(RULES[optimizer].torch_class))  # type: ignore[no-any-return]


def parameter(size: int = 1) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(size, dtype=torch.float64))


def convert(
    live: torch.optim.Optimizer, name: str, base: dict[str, Any], old: float, new: float, **options: Any
) -> None:
    """State and hyperparameters together, as at a step boundary."""
    factors = switch(name, base, old, new, **options)
    for state in live.state.values():
        for key, factor in factors.items():
            if state.get(key) is not None:
                state[key] = state[key] * factor
    live.param_groups[0].update(derive(name, base, new, **options).values)


def speeds(name: str, base: dict[str, Any], path: tuple[int, ...]) -> dict[int, float]:
    """Displacement per sample (of one base batch) at each number of samples seen, under a constant gradient."""
    weight = parameter()
    live = torch_class(name)([weight], **derive(name, base, path[0], f=0.0).values)
    seen, at, old = 0, {}, path[0]
    for kappa in path:
        convert(live, name, base, old, kappa, f=0.0)
        for _ in range(SEGMENT // kappa):
            before = weight.item()
            weight.grad = torch.full_like(weight, 0.7)
            live.step()
            seen += kappa
            at[seen] = (before - weight.item()) / kappa
        old = kappa
    return at


@pytest.mark.parametrize("optimizer", IN_TORCH)
def test_a_row_has_the_names_and_defaults_of_its_torch_class(optimizer: str) -> None:
    parameters = inspect.signature(torch_class(optimizer)).parameters
    ours = dict(RULES[optimizer].defaults)
    assert ours == {name: parameters[name].default for name in ours}


def test_torch_has_no_class_for_the_other_rows() -> None:
    in_torch = {name.lower() for name in dir(torch.optim)}
    assert not (RULES.keys() - set(IN_TORCH)) & in_torch


@pytest.mark.parametrize(
    ("optimizer", "base"),
    [
        *((name, {}) for name in IN_TORCH),
        ("sgd", {"momentum": 0.9}),
        ("adam", {"amsgrad": True}),
        ("rmsprop", {"momentum": 0.9}),
    ],
)
def test_switch_names_all_of_the_state_and_nothing_else(optimizer: str, base: dict[str, Any]) -> None:
    weight = parameter()
    live = torch_class(optimizer)([weight], **base)
    weight.grad = torch.ones_like(weight)
    live.step()
    stateful = {name for name, value in live.state[weight].items() if value is not None}
    factors = switch(optimizer, base, 1, 2)
    # Without momentum there is no buffer to multiply.
    assert set(factors) - ({"momentum_buffer"} if not base.get("momentum") else set()) == stateful


@pytest.mark.parametrize(
    ("optimizer", "base", "tolerance"),
    [
        ("sgd", {"lr": 0.1}, 1e-10),
        ("sgd", {"lr": 0.1, "momentum": 0.9}, 1e-10),
        ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 1e-10),
        ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}, 1e-10),
        ("adam", {}, 1e-10),
        ("adam", {"amsgrad": True}, 1e-10),
        ("adamw", {"weight_decay": 0.0}, 1e-10),
        ("rmsprop", {"alpha": 0.9, "momentum": 0.9}, 1e-10),
        ("adagrad", {}, 1e-10),
        # Their schedules are sums over steps, which agree to first order; lr_decay starts at step 1, not 0.
        ("adagrad", {"lr_decay": 1e-2, "initial_accumulator_value": 0.1}, 1e-2),
        ("nadam", {}, 1e-3),
        ("radam", {}, 3e-2),
    ],
)
def test_displacement_per_sample_is_that_of_the_base_run(
    optimizer: str, base: dict[str, Any], tolerance: float
) -> None:
    expected = speeds(optimizer, base, (1,) * len(PATH))
    got = speeds(optimizer, base, PATH)
    assert got == pytest.approx({seen: expected[seen] for seen in got}, rel=tolerance)
    end = len(PATH) * SEGMENT
    assert got[end] == pytest.approx(expected[end], rel=1e-10)


def test_momentum_builds_up_over_the_same_samples() -> None:
    """From an empty buffer: SGD at kappa is exactly as fast as the base run after the same samples, from the start."""
    base = {"lr": 0.1, "momentum": 0.9}
    expected = speeds("sgd", base, (1,))
    for kappa in (2, 4, 8):
        got = speeds("sgd", base, (kappa,))
        assert got == pytest.approx({seen: expected[seen] for seen in got}, rel=1e-10)


def effective_step(live: torch.optim.Optimizer, weight: torch.nn.Parameter, kappa: float) -> torch.Tensor:
    """lr mhat / (sqrt(vhat) + eps) per base batch of samples, from what the optimizer holds now."""
    group, state = live.param_groups[0], live.state[weight]
    beta1, beta2 = group["betas"]
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    mean = state["exp_avg"] / (1 - beta1 ** state["step"].item())
    root = (second / (1 - beta2 ** state["step"].item())).sqrt()
    return torch.as_tensor(group["lr"] * mean / (root + group["eps"]) / kappa)


@pytest.mark.parametrize("options", [{"f": 0.0}, {"f": 0.6}, {"f": 1.0}, {"f": 0.6, "second_moment": "per_worker"}])
@pytest.mark.parametrize(
    ("optimizer", "base"), [("adam", {"eps": 1e-3}), ("adam", {"amsgrad": True}), ("adamw", {"weight_decay": 0.1})]
)
def test_adams_step_is_continuous_at_a_switch(optimizer: str, base: dict[str, Any], options: dict[str, Any]) -> None:
    """Noisy gradients, real steps in between; at each switch nothing but the names of the numbers changes."""
    weight, generator = parameter(5), torch.Generator().manual_seed(0)
    live = torch_class(optimizer)([weight], **derive(optimizer, base, 1, **options).values)
    for old, new in pairwise(PATH):
        for _ in range(7):
            weight.grad = torch.randn(5, dtype=torch.float64, generator=generator) / old**0.5 + 0.3
            live.step()
        before = effective_step(live, weight, old)
        group = live.param_groups[0]
        decay_before = group["lr"] * group["weight_decay"] / old
        convert(live, optimizer, base, old, new, **options)
        torch.testing.assert_close(effective_step(live, weight, new), before, rtol=1e-10, atol=0)
        if optimizer == "adamw":
            assert group["lr"] * group["weight_decay"] / new == pytest.approx(decay_before, rel=1e-12)


def test_centered_rmsprop_survives_a_switch() -> None:
    """Its variance changes by ko / kn in every coordinate, and the next steps are finite."""
    base = {"centered": True, "alpha": 0.9}
    weight, generator = parameter(50), torch.Generator().manual_seed(0)
    live = torch.optim.RMSprop([weight], **derive("rmsprop", base, 1).values)
    for old, new in pairwise(PATH):
        for _ in range(20):
            weight.grad = torch.randn(50, dtype=torch.float64, generator=generator) / old**0.5 + 3.0
            live.step()
        state = live.state[weight]
        variance = state["square_avg"] - state["grad_avg"] ** 2
        state["square_avg"] = scaling.centered_square_avg(state["square_avg"], state["grad_avg"], old, new)
        live.param_groups[0].update(derive("rmsprop", base, new).values)
        got = state["square_avg"] - state["grad_avg"] ** 2
        torch.testing.assert_close(got, variance * old / new, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(weight).all()
