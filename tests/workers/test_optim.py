"""torch's optimizers under the scaling rules, for every row of the table that torch can build."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from api_schemas import scaling
from api_schemas.dynamics import Size, is_centered, state_factors
from api_schemas.errors import ScalingError
from api_schemas.jobs import JobSpec
from workers import optim

BASE_LR = 0.01


def variants() -> list[Any]:
    """Each row with its defaults, and once with every switch of its own turned on."""
    cases = []
    for name, row in scaling.RULES.items():
        momentum = {"momentum": 0.9} if "momentum" in row.defaults else {}
        cases.append(pytest.param(name, {"lr": BASE_LR}, id=name))
        cases.append(pytest.param(name, {"lr": BASE_LR, "weight_decay": 0.1, **momentum}, id=f"{name}-decay"))
        for key in (key for key, value in row.defaults.items() if isinstance(value, bool)):
            cases.append(pytest.param(name, {"lr": BASE_LR, key: True, **momentum}, id=f"{name}-{key}"))
    cases.append(pytest.param("sgd", {"lr": BASE_LR, "momentum": 0.9, "dampening": 0.9}, id="sgd-average"))
    cases.append(pytest.param("adagrad", {"lr": BASE_LR, "initial_accumulator_value": 0.1}, id="adagrad-initial"))
    return cases


every_optimizer = pytest.mark.parametrize(("name", "base"), variants())


def net(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


def train(model: nn.Module, optimizer: Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        dtype = next(model.parameters()).dtype
        model(torch.randn(8, 3, generator=generator).to(dtype)).square().mean().backward()
        optimizer.step()


def started(name: str, base: dict[str, Any], kappa: float = 1.0, steps: int = 3) -> tuple[Any, Optimizer]:
    model = net()
    optimizer = optim.build(name, model.parameters(), scaling.derive(name, base, kappa).values)
    train(model, optimizer, steps)
    return model, optimizer


Factors = tuple[dict[str, float], optim.Switch | None]


def factors_of(
    name: str, base: dict[str, Any], old: float, new: float, f: float = 0.5, rule: str = "matched"
) -> Factors:
    """As a job that changes its size gets them."""
    spec = JobSpec.model_validate(
        {
            "name": "any",
            "recipe": {"name": "any"},
            "optimizer": {"name": name, **base},
            "schedule": {"budget": "1 epochs"},
            "batch": {"base": 64, "per_worker": 64},
            "scaling": {"rule": rule, "second_moment": "measured"},
        }
    )
    sizes = [Size(workers=1, batch=64, kappa=kappa, noise_fraction=f) for kappa in (old, new)]
    return state_factors(spec, *sizes), (old, new) if is_centered(spec) else None


def switched(optimizer: Optimizer, name: str, base: dict[str, Any], old: float, new: float, f: float = 0.5) -> None:
    factors, centered = factors_of(name, base, old, new, f)
    optim.convert(optimizer, factors, centered=centered)
    optim.apply(optimizer, scaling.derive(name, base, new, f=f).values)


@every_optimizer
def test_round_trip_continues_bit_for_bit(name: str, base: dict[str, Any]) -> None:
    model, optimizer = started(name, base, kappa=2.0)
    switched(optimizer, name, base, 2.0, 3.0)  # fractional counters have to survive as well
    stored = {key: value.clone() for key, value in optim.state_tensors(optimizer).items()}
    other = copy.deepcopy(model)
    joined = optim.build(name, other.parameters(), scaling.derive(name, base, 3.0, f=0.5).values)
    optim.load_state_tensors(joined, stored)
    assert optim.state_tensors(joined).keys() == stored.keys()
    for key, value in optim.state_tensors(joined).items():
        assert value.dtype == stored[key].dtype
        assert torch.equal(value, stored[key])
    train(model, optimizer, 4, seed=7)
    train(other, joined, 4, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@every_optimizer
def test_the_fused_step_is_the_plain_one(name: str, base: dict[str, Any]) -> None:
    model, optimizer = started(name, base, kappa=2.0)
    switched(optimizer, name, base, 2.0, 3.0)
    other = copy.deepcopy(model)
    plain = optim.build(name, other.parameters(), scaling.derive(name, base, 3.0, f=0.5).values)
    optim.load_state_tensors(plain, optim.state_tensors(optimizer))
    for group in plain.param_groups:
        group["fused"] = False
    train(model, optimizer, 4, seed=7)
    train(other, plain, 4, seed=7)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@every_optimizer
def test_loaded_state_is_a_copy_or_adopted(name: str, base: dict[str, Any]) -> None:
    model, optimizer = started(name, base)
    twin = optim.build(name, copy.deepcopy(model).parameters(), scaling.derive(name, base, 1.0).values)
    optim.load_state_tensors(twin, optim.state_tensors(optimizer))
    mine, theirs = optim.state_tensors(optimizer), optim.state_tensors(twin)
    assert all(mine[key].data_ptr() != theirs[key].data_ptr() for key in mine)
    optim.load_state_tensors(twin, mine, adopt=True)
    adopted = optim.state_tensors(twin)
    assert all(mine[key].data_ptr() == adopted[key].data_ptr() for key in mine if ":" not in key)


@every_optimizer
def test_memory_for_state_is_what_a_step_makes(name: str, base: dict[str, Any]) -> None:
    model, optimizer = started(name, base)
    blank = optim.blank_state(name, model.parameters(), scaling.derive(name, base, 1.0).values)
    state = optim.state_tensors(optimizer)
    assert blank.keys() == {key for key, value in state.items() if value.dim()}
    assert all(value.shape == state[key].shape and not value.any() for key, value in blank.items())


@every_optimizer
def test_state_is_multiplied_by_its_factors(name: str, base: dict[str, Any]) -> None:
    _, optimizer = started(name, base)
    before = {key: value.clone() for key, value in optim.state_tensors(optimizer).items()}
    factors, centered = factors_of(name, base, 1, 4)
    optim.convert(optimizer, factors, centered=centered)
    for key, value in optim.state_tensors(optimizer).items():
        state = key.partition(".")[2]
        if centered and state == "square_avg":
            mean = before[key.replace("square_avg", "grad_avg")]
            wanted = scaling.centered_square_avg(before[key], mean, *centered)
        else:
            wanted = before[key] * factors.get(state, 1.0)
        torch.testing.assert_close(value, wanted)


@every_optimizer
def test_switches_compose_and_training_goes_on(name: str, base: dict[str, Any]) -> None:
    model, optimizer = started(name, base)
    before = {key: value.clone() for key, value in optim.state_tensors(optimizer).items()}
    hyperparameters = copy.deepcopy([{**group, "params": ()} for group in optimizer.param_groups])
    for old, new in [(1, 4), (4, 2), (2, 0.5), (0.5, 1)]:
        switched(optimizer, name, base, old, new)
    for key, value in optim.state_tensors(optimizer).items():
        torch.testing.assert_close(value, before[key], rtol=1e-5, atol=1e-7)
    for group, wanted in zip(optimizer.param_groups, hyperparameters, strict=True):
        assert {**group, "params": ()} == wanted
    switched(optimizer, name, base, 1, 3)
    train(model, optimizer, 3)
    assert all(p.isfinite().all() for p in model.parameters())


@every_optimizer
def test_conversion_before_the_first_step_changes_nothing_that_counts(name: str, base: dict[str, Any]) -> None:
    model = net()
    optimizer = optim.build(name, model.parameters(), scaling.derive(name, base, 1.0).values)
    switched(optimizer, name, base, 1, 4)
    train(model, optimizer, 1)
    assert all(p.isfinite().all() for p in model.parameters())


@every_optimizer
def test_published_rules_leave_state_alone(name: str, base: dict[str, Any]) -> None:
    if scaling.RULES[name].published is None:
        with pytest.raises(ScalingError):
            factors_of(name, base, 1, 2, rule="published")
        return
    factors, centered = factors_of(name, base, 1, 2, rule="published")
    assert set(factors.values()) == {1.0}
    assert centered is None


@pytest.mark.parametrize("factor", [math.nan, math.inf, 0.0, -1.0])
def test_an_impossible_factor_touches_nothing(factor: float) -> None:
    _, optimizer = started("adam", {})
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="finite"):
        optim.convert(optimizer, {"exp_avg_sq": 0.5, "step": factor})
    after = optimizer.state_dict()
    for index, state in before["state"].items():
        assert all(torch.equal(state[key], after["state"][index][key]) for key in state)


def test_an_impossible_kappa_touches_nothing() -> None:
    _, optimizer = started("rmsprop", {"centered": True})
    before = {key: value.clone() for key, value in optim.state_tensors(optimizer).items()}
    with pytest.raises(ScalingError):
        optim.convert(optimizer, {"step": 0.5}, centered=(1.0, math.nan))
    assert all(torch.equal(value, before[key]) for key, value in optim.state_tensors(optimizer).items())


def test_momentum_at_its_steady_state_stays_there() -> None:
    weight = nn.Parameter(torch.zeros(4))
    base = {"lr": 0.1, "momentum": 0.9}
    optimizer = optim.build("sgd", [weight], scaling.derive("sgd", base, 1.0).values)

    def step() -> Tensor:
        weight.grad = torch.ones(4)
        before = weight.detach().clone()
        optimizer.step()
        return weight.detach() - before

    for _ in range(300):
        one = step()
    switched(optimizer, "sgd", base, 1, 8)
    torch.testing.assert_close(step(), 8 * one)


def test_centered_rmsprop_keeps_a_positive_denominator() -> None:
    model, optimizer = started("rmsprop", {"lr": BASE_LR, "centered": True}, steps=50)
    switched(optimizer, "rmsprop", {"lr": BASE_LR, "centered": True}, 1, 16)
    train(model, optimizer, 5)
    assert all(p.isfinite().all() for p in model.parameters())


def test_values_reach_every_group_with_the_schedule_on_lr_alone() -> None:
    model = net()
    groups: Any = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 5.0}]
    optimizer = optim.build("adamw", groups, scaling.derive("adamw", {}, 1.0).values)
    values = scaling.derive("adamw", {"lr": 0.01, "betas": [0.9, 0.99]}, 4.0).values
    optim.apply(optimizer, {**values, "betas": list(values["betas"])}, 0.25)
    for group in optimizer.param_groups:
        assert group["lr"] == values["lr"] * 0.25
        assert group["betas"] == values["betas"]
        assert group["weight_decay"] == values["weight_decay"]


def test_an_unknown_hyperparameter_is_refused() -> None:
    _, optimizer = started("sgd", {})
    with pytest.raises(ValueError, match="SGD has no hyperparameter ema_momentum"):
        optim.apply(optimizer, {"lr": 1.0, "ema_momentum": 0.9})
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("name", ["muon", "no-such"])
def test_what_has_no_row_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="adamw"):
        optim.build(name, net().parameters(), {})


def test_numbers_in_the_state_keep_their_kind() -> None:
    model, optimizer = started("adam", {})
    optimizer.state[model[0].weight]["step"] = 3
    optimizer.state[model[0].bias]["step"] = 2.5
    stored = optim.state_tensors(optimizer)
    assert stored["0.step:int"].dim() == 0
    twin = optim.build("adam", model.parameters(), scaling.derive("adam", {}, 1.0).values)
    optim.load_state_tensors(twin, stored)
    assert twin.state[model[0].weight]["step"] == 3
    assert type(twin.state[model[0].weight]["step"]) is int
    assert twin.state[model[0].bias]["step"] == 2.5
    optim.convert(twin, {"step": 0.25})
    assert twin.state[model[0].weight]["step"] == 0.75


def test_low_precision_state_keeps_its_dtype() -> None:
    model = net(torch.bfloat16)
    optimizer = optim.build("adam", model.parameters(), scaling.derive("adam", {}, 1.0).values)
    train(model, optimizer, 2)
    stored = optim.state_tensors(optimizer)
    assert stored["0.exp_avg"].dtype == torch.bfloat16
    assert stored["0.step"].dtype == torch.float32
    twin = optim.build("adam", model.parameters(), scaling.derive("adam", {}, 1.0).values)
    optim.load_state_tensors(twin, stored)
    assert {key: value.dtype for key, value in optim.state_tensors(twin).items()} == {
        key: value.dtype for key, value in stored.items()
    }


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("9.exp_avg", torch.zeros(3), "none of the optimizer's 4"),
        ("0.exp_avg", torch.zeros(7), "has shape"),
        ("exp_avg", torch.zeros(3), "not a state name"),
        ("0.step:complex", torch.zeros(()), "not a state name"),
    ],
)
def test_foreign_state_is_refused_and_nothing_replaced(key: str, tensor: Tensor, message: str) -> None:
    _, optimizer = started("adam", {})
    before = optim.state_tensors(optimizer)
    with pytest.raises(ValueError, match=message):
        optim.load_state_tensors(optimizer, {**before, key: tensor})
    assert optim.state_tensors(optimizer).keys() == before.keys()
