"""What Adam's v is fed, against torch's own Adam and against the update written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from api_schemas.scaling import SecondMomentWeights, second_moment_weights
from workers.optim import LEAST_BETA2, feed_second_moment

PLAIN = SecondMomentWeights(square=1.0, spread=0.0)
ENGINES: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"fused": True}]

kinds = pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Adam, {}),
        (Adam, {"weight_decay": 0.1}),
        (Adam, {"amsgrad": True}),
        (Adam, {"amsgrad": True, "weight_decay": 0.1}),
        (AdamW, {"weight_decay": 0.1}),
        (AdamW, {"amsgrad": True}),
        (Adam, {"betas": (0.9, 0.0)}),
        (Adam, {"betas": (0.0, 0.9)}),
    ],
    ids=["adam", "l2", "amsgrad", "amsgrad-l2", "adamw", "adamw-amsgrad", "beta2-0", "beta1-0"],
)
engines = pytest.mark.parametrize("engine", ENGINES, ids=["single", "foreach", "fused"])


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((3, 4), (5,))]


def step(optimizer: Optimizer, number: int, weights: SecondMomentWeights) -> tuple[list[Tensor], list[Tensor]]:
    """One fed step with a gradient and a spread of its own; returns both."""
    generator = torch.Generator().manual_seed(100 + number)
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in owned]
    spreads = [torch.rand(p.shape, generator=generator, dtype=p.dtype) for p in owned]
    for parameter, gradient in zip(owned, gradients, strict=True):
        parameter.grad = gradient.clone()
    feed_second_moment(optimizer, dict(zip(owned, spreads, strict=True)), weights)
    optimizer.step()
    return gradients, spreads


class ByHand:
    """Adam as it is written in the paper, with any input for v."""

    def __init__(
        self, kind: type, *, lr: float, betas: tuple[float, float], weight_decay: float, amsgrad: bool
    ) -> None:
        self.kind, self.lr, self.betas = kind, lr, (betas[0], max(betas[1], LEAST_BETA2))
        self.weight_decay, self.amsgrad = weight_decay, amsgrad
        self.values = [p.detach().clone() for p in parameters()]
        self.m = [torch.zeros_like(p) for p in self.values]
        self.v = [torch.zeros_like(p) for p in self.values]
        self.most = [torch.zeros_like(p) for p in self.values]
        self.steps = 0

    def step(self, gradients: list[Tensor], spreads: list[Tensor], weights: SecondMomentWeights) -> None:
        self.steps += 1
        (beta1, beta2), t = self.betas, self.steps
        for i, (g, q) in enumerate(zip(gradients, spreads, strict=True)):
            if self.kind is AdamW:
                self.values[i] = self.values[i] * (1 - self.lr * self.weight_decay)
            else:
                g = g + self.weight_decay * self.values[i]
            self.m[i] = beta1 * self.m[i] + (1 - beta1) * g
            self.v[i] = beta2 * self.v[i] + (1 - beta2) * (weights.square * g * g + weights.spread * q)
            self.most[i] = torch.maximum(self.most[i], self.v[i])
            used = self.most[i] if self.amsgrad else self.v[i]
            root = (used / (1 - beta2**t)).sqrt() + 1e-8
            self.values[i] = self.values[i] - self.lr * self.m[i] / (1 - beta1**t) / root


def both(kind: type, settings: dict[str, Any], engine: dict[str, Any]) -> tuple[Optimizer, ByHand]:
    known = {"betas": (0.9, 0.99), "weight_decay": 0.0, "amsgrad": False} | settings
    return kind(parameters(), lr=0.01, **known, **engine), ByHand(kind, lr=0.01, **known)


def state(optimizer: Optimizer, name: str) -> list[Tensor]:
    return [each[name] for each in optimizer.state.values()]


@kinds
@engines
@pytest.mark.parametrize(
    "weights",
    [second_moment_weights(5, 4.0), second_moment_weights(5, 0.25, 0.6), second_moment_weights(1, 3.0, 0.6)],
    ids=["spread", "kappa<1", "one-shard"],
)
def test_v_averages_what_it_is_fed(
    kind: type, settings: dict[str, Any], engine: dict[str, Any], weights: SecondMomentWeights
) -> None:
    """From the first step, which finds no state, on."""
    optimizer, hand = both(kind, settings, engine)
    for number in range(4):
        hand.step(*step(optimizer, number, weights), weights)
        tolerance = {"rtol": 1e-8 if hand.betas[1] <= LEAST_BETA2 else 1e-10, "atol": 1e-13}
        torch.testing.assert_close(state(optimizer, "exp_avg_sq"), hand.v, **tolerance)
        values = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        torch.testing.assert_close(values, hand.values, **tolerance)
    if hand.amsgrad:
        torch.testing.assert_close(state(optimizer, "max_exp_avg_sq"), hand.most, rtol=1e-10, atol=1e-14)


@kinds
@engines
def test_at_the_base_batch_it_is_torchs_own_step_bit_for_bit(
    kind: type, settings: dict[str, Any], engine: dict[str, Any]
) -> None:
    settings = settings | ({"betas": (0.9, LEAST_BETA2)} if settings.get("betas") == (0.9, 0.0) else {})
    fed, _ = both(kind, settings, engine)
    plain, _ = both(kind, settings, engine)
    assert second_moment_weights(5, 1.0) == PLAIN
    for number in range(3):
        gradients, _ = step(fed, number, PLAIN)
        for group in plain.param_groups:
            for parameter, gradient in zip(group["params"], gradients, strict=True):
                parameter.grad = gradient.clone()
        plain.step()
    for mine, theirs in zip(fed.param_groups[0]["params"], plain.param_groups[0]["params"], strict=True):
        assert torch.equal(mine, theirs)
        assert fed.state[mine].keys() == plain.state[theirs].keys()
        assert all(torch.equal(fed.state[mine][name], plain.state[theirs][name]) for name in fed.state[mine])


@engines
def test_single_precision_stays_finite_at_the_smallest_kappa(engine: dict[str, Any]) -> None:
    """v lacks nearly all of g^2 before the step, and must not come out below 0 for it."""
    weights = second_moment_weights(1, 1e-3, 1.0)
    for beta2 in (0.0, 0.9, 0.999, 0.99999):
        owned = [nn.Parameter(p.detach().float()) for p in parameters()]
        optimizer = Adam(owned, lr=0.01, betas=(0.9, beta2), **engine)
        for number in range(5):
            step(optimizer, number, weights)
            assert all(bool((v >= 0).all()) for v in state(optimizer, "exp_avg_sq"))
        assert all(bool(p.isfinite().all()) for p in owned)


def test_parameters_without_gradient_are_left_alone() -> None:
    used, unused = parameters()
    optimizer = Adam([used, unused])
    used.grad = torch.ones_like(used)
    feed_second_moment(optimizer, {used: torch.ones_like(used)}, SecondMomentWeights(1.0, 2.0))
    assert unused not in optimizer.state
    optimizer.step()


def test_groups_have_betas_of_their_own() -> None:
    first, second = parameters()
    optimizer = Adam([{"params": [first], "betas": (0.9, 0.5)}, {"params": [second], "betas": (0.9, 0.75)}])
    for parameter in (first, second):
        parameter.grad = torch.zeros_like(parameter)
    spread = {parameter: torch.ones_like(parameter) for parameter in (first, second)}
    feed_second_moment(optimizer, spread, SecondMomentWeights(1.0, 2.0))
    optimizer.step()
    for parameter, expected in ((first, 1.0), (second, 0.5)):
        torch.testing.assert_close(optimizer.state[parameter]["exp_avg_sq"], torch.full_like(parameter, expected))


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_torch_before_2_7_does_not_say_whether_its_decay_is_coupled(kind: type) -> None:
    """There Adam and AdamW were two classes, without `decoupled_weight_decay` in their groups."""
    weights = second_moment_weights(1, 4.0, 0.5)
    now, _ = both(kind, {"weight_decay": 0.1}, {})
    older = copy.deepcopy(now)
    older.param_groups[0].pop("decoupled_weight_decay")
    for optimizer in (now, older):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        feed_second_moment(optimizer, {}, weights)
    assert all(torch.equal(a, b) for a, b in zip(*(state(each, "exp_avg_sq") for each in (now, older)), strict=True))
