"""LARS, LAMB and Lion against their formulas, worked out by hand on one tensor at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workers.optimizers import LARS_TRUST, Lamb, Lars, Lion

RTOL = 1e-6


def tensors(*shape: int) -> tuple[nn.Parameter, list[Tensor]]:
    """A parameter and the gradients of three steps."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, generator=generator))
    return weight, [torch.randn(shape, generator=generator) for _ in range(3)]


def run(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_is_sgd_with_a_rate_for_each_tensor(nesterov: bool) -> None:
    weight, gradients = tensors(4, 3)
    w, buffer = weight.detach().clone(), None
    for g in gradients:
        decayed = g + 0.1 * w
        update = decayed * LARS_TRUST * w.norm() / decayed.norm()
        buffer = update if buffer is None else 0.9 * buffer + update
        w = w - 2.0 * (update + 0.9 * buffer if nesterov else buffer)
    found = run(Lars([weight], lr=2.0, momentum=0.9, weight_decay=0.1, nesterov=nesterov), weight, gradients)
    torch.testing.assert_close(found, w, rtol=RTOL, atol=1e-6)


@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_lars_takes_biases_as_plain_sgd_does_and_never_decays_them(dampening: float) -> None:
    weight, gradients = tensors(5)
    twin = nn.Parameter(weight.detach().clone())
    options = {"lr": 0.1, "momentum": 0.9, "dampening": dampening}
    found = run(Lars([weight], weight_decay=0.1, **options), weight, gradients)
    torch.testing.assert_close(found, run(torch.optim.SGD([twin], **options), twin, gradients))


def test_lamb_is_adamw_whose_steps_are_as_long_as_the_weights() -> None:
    weight, gradients = tensors(4, 3)
    w, m, v = weight.detach().clone(), torch.zeros(4, 3), torch.zeros(4, 3)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        update = (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-6) + 0.1 * w
        w = w - 0.02 * w.norm() / update.norm() * update
    found = run(Lamb([weight], lr=0.02, betas=(0.9, 0.99), weight_decay=0.1), weight, gradients)
    torch.testing.assert_close(found, w, rtol=RTOL, atol=1e-6)


def test_lion_steps_by_signs() -> None:
    weight, gradients = tensors(4, 3)
    w, m = weight.detach().clone(), torch.zeros(4, 3)
    for g in gradients:
        w = w * (1 - 0.01 * 0.1) - 0.01 * (0.9 * m + 0.1 * g).sign()
        m = 0.99 * m + 0.01 * g
    found = run(Lion([weight], lr=0.01, weight_decay=0.1), weight, gradients)
    torch.testing.assert_close(found, w, rtol=RTOL, atol=1e-6)


@pytest.mark.parametrize("kind", [Lars, Lamb])
def test_weights_or_gradients_of_zero_take_a_plain_step(kind: type[Lars] | type[Lamb]) -> None:
    for weight, gradient in ((torch.zeros(2, 2), torch.ones(2, 2)), (torch.ones(2, 2), torch.zeros(2, 2))):
        parameter = nn.Parameter(weight)
        assert run(kind([parameter], lr=0.1), parameter, [gradient]).isfinite().all()


@pytest.mark.parametrize("kind", [Lars, Lamb, Lion])
def test_parameters_without_a_gradient_are_left_alone(kind: type[Lars] | type[Lamb] | type[Lion]) -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = kind([used, unused], lr=0.1)
    used.grad = torch.ones(2, 2)
    optimizer.step()
    assert not torch.equal(used, unused)
    assert torch.equal(unused, torch.ones(2, 2))
    assert unused not in optimizer.state
