"""The EMA against a loop in float64, at any kappa, momentum and precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from api_schemas.errors import ScalingError
from workers.ema import Ema


def net(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).to(dtype)


@torch.no_grad()
def wander(model: nn.Module, generator: torch.Generator) -> None:
    """An optimizer step of a kind."""
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype), alpha=0.1)


def values(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().double().clone() for parameter in model.parameters()]


@settings(max_examples=25, deadline=None)
@given(
    schedule=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.9, 0.9999, 1.0]), st.floats(0.1, 64)), max_size=12),
    kind=st.sampled_from(["after", "before", "interpolate"]),
)
def test_follows_the_reference_loop(schedule: list[tuple[float, float]], kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    model = net()
    ema = Ema(model, order="before" if kind == "before" else "after", interpolate=kind == "interpolate")
    reference = values(model)
    for rho, kappa in schedule:
        before = values(model)
        ema.before_step(model, rho, kappa)
        wander(model, generator)
        ema.after_step(model, rho, kappa)
        old, new = reference_shares(rho, kappa, kind)
        both = zip(before, values(model), strict=True)
        reference = [rho**kappa * r + old * b + new * a for r, (b, a) in zip(reference, both, strict=True)]
    for mine, wanted in zip(values(ema.module), reference, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


def reference_shares(rho: float, kappa: float, kind: str) -> tuple[float, float]:
    total = 1 - rho**kappa
    if kind == "before":
        return total, 0.0
    if kind == "after" or rho == 1:
        return 0.0, total
    new = 1 - rho * total / (kappa * (1 - rho))
    return total - new, new


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_parameters_are_averaged_in_fp32(dtype: torch.dtype) -> None:
    model = net(dtype)
    ema = Ema(model)
    assert {p.dtype for p in ema.module.parameters()} == {torch.float32}
    with torch.no_grad():
        model[0].weight.fill_(2.0)
    start = ema.module.get_submodule("0").weight.clone()
    for _ in range(1000):
        ema.after_step(model, 0.9999, 1.0)
    wanted = start + (2.0 - start) * (1 - 0.9999**1000)
    torch.testing.assert_close(ema.module.get_submodule("0").weight, wanted, rtol=1e-4, atol=1e-5)


def test_float64_stays_float64() -> None:
    assert {p.dtype for p in Ema(net(torch.float64)).module.parameters()} == {torch.float64}


def test_kappa_small_steps_equal_one_large_one_at_fixed_weights() -> None:
    model = net()
    small, large = Ema(model), Ema(model)
    wander(model, torch.Generator().manual_seed(0))
    for _ in range(16):
        small.after_step(model, 0.99, 1.0)
    large.after_step(model, 0.99, 16.0)
    for a, b in zip(small.module.parameters(), large.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_interpolation_equals_base_steps_along_the_line() -> None:
    model = net(torch.float64)
    start, kappa, rho = values(model), 8, 0.95
    ema = Ema(model, interpolate=True)
    ema.before_step(model, rho, kappa)
    wander(model, torch.Generator().manual_seed(0))
    ema.after_step(model, rho, kappa)
    for mine, before, after in zip(ema.module.parameters(), start, values(model), strict=True):
        reference = before
        for step in range(1, kappa + 1):
            reference = rho * reference + (1 - rho) * (before + (after - before) * step / kappa)
        torch.testing.assert_close(mine.detach(), reference, rtol=1e-12, atol=1e-13)


def test_all_buffers_are_copied_not_averaged() -> None:
    model = net()
    ema = Ema(model)
    model(torch.randn(32, 4))
    ema.after_step(model, 0.99, 2.0)
    shadow = dict(ema.module.named_buffers())
    assert shadow["1.num_batches_tracked"].item() == 1
    for name, buffer in model.named_buffers():
        assert torch.equal(shadow[name], buffer)
        assert shadow[name].data_ptr() != buffer.data_ptr()


def test_shadow_is_apart_in_eval_mode_and_without_gradients() -> None:
    model = net().train()
    ema = Ema(model)
    assert not ema.module.training
    assert model.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    wander(model, torch.Generator().manual_seed(0))
    ema.after_step(model, 1.0, 4.0)
    assert not torch.equal(ema.module.get_submodule("0").weight, model[0].weight)


def test_tied_weights_stay_tied() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).to(torch.bfloat16)
    model[1].weight = model[0].weight
    ema = Ema(copy.deepcopy(model))
    assert ema.module.get_submodule("0").weight is ema.module.get_submodule("1").weight
    ema.after_step(model, 0.5, 1.0)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda ema, model: ema.after_step(model, 1.5, 1.0), "decay_out_of_range"),
        (lambda ema, model: ema.after_step(model, 0.9, math.nan), "kappa_invalid"),
    ],
)
def test_impossible_numbers_are_refused(call: Callable[[Ema, nn.Module], None], reason: str) -> None:
    model = net()
    ema = Ema(model)
    with pytest.raises(ScalingError) as caught:
        call(ema, model)
    assert caught.value.reason == reason


def test_interpolation_needs_the_weights_before_the_step() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="before_step"):
        Ema(model, interpolate=True).after_step(model, 0.9, 2.0)
