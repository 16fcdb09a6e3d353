"""Optimizers that torch lacks: LARS, LAMB and Lion, with torch's state names and in its way.

Written from the papers; where these leave something open, the convention named beside it is followed. All tensors of a
group are updated together, by torch's foreach operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LARS_TRUST = 1e-3
"""eta, the trust coefficient of the LARS paper."""


class Lars(Optimizer):
    """SGD with a learning rate for each tensor: You, Gitman and Ginsburg 2017, arXiv 1708.03888.

    The gradient, weight decay included, is multiplied by eta |w| / |g + wd w| before the momentum, as timm does it; not
    for tensors of fewer than two dimensions (biases, norms), which take plain steps without weight decay, as in BYOL's
    appendix (arXiv 2006.07733). State: `momentum_buffer`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params, gradients = _with_gradients(group)
            updates = [self._trusted(p, g, group["weight_decay"]) for p, g in zip(params, gradients, strict=True)]
            if group["momentum"]:
                updates = self._remembered(params, updates, group)
            torch._foreach_add_(params, updates, alpha=-group["lr"])
        return loss

    @staticmethod
    def _trusted(parameter: Tensor, gradient: Tensor, weight_decay: float) -> Tensor:
        if parameter.dim() < 2:
            return gradient.clone()
        decayed = gradient.add(parameter, alpha=weight_decay)
        return decayed.mul_(LARS_TRUST * _ratio(parameter.norm(), decayed.norm(), otherwise=1 / LARS_TRUST))

    def _remembered(self, params: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Through the momentum, as torch's SGD: the first update goes in whole."""
        out = []
        for parameter, update in zip(params, updates, strict=True):
            state = self.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = update.clone()
            else:
                state["momentum_buffer"].mul_(group["momentum"]).add_(update, alpha=1 - group["dampening"])
            buffer = state["momentum_buffer"]
            out.append(update.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer)
        return out


class Lamb(Optimizer):
    """Adam's update, decoupled weight decay included, with a trust ratio for each tensor: arXiv 1904.00962.

    The ratio is |w| / |update|, without a bound, and 1 where either is 0; bias corrections as Adam's. State: `exp_avg`,
    `exp_avg_sq`, `step`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter, gradient in zip(*_with_gradients(group), strict=True):
                update = self._adam(parameter, gradient, group).add_(parameter, alpha=group["weight_decay"])
                ratio = _ratio(parameter.norm(), update.norm(), otherwise=1.0)
                parameter.sub_(update.mul_(ratio * group["lr"]))
        return loss

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        step = float(state["step"])
        root = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
        update: Tensor = (state["exp_avg"] / (1 - beta1**step)).div_(root)
        return update


class Lion(Optimizer):
    """The sign of an interpolated momentum, with decoupled weight decay: Chen et al. 2023, arXiv 2302.06675.

    State: `exp_avg`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params, gradients = _with_gradients(group)
            for parameter in params:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
            averages = [self.state[parameter]["exp_avg"] for parameter in params]
            beta1, beta2 = group["betas"]
            signs = [update.sign_() for update in torch._foreach_lerp(averages, gradients, 1 - beta1)]
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, signs, alpha=-group["lr"])
            torch._foreach_lerp_(averages, gradients, 1 - beta2)
        return loss


OPTIMIZERS: dict[str, type[Optimizer]] = {"lars": Lars, "lamb": Lamb, "lion": Lion}
"""By their row in `api_schemas.scaling.RULES`."""


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    params = [parameter for parameter in group["params"] if parameter.grad is not None]
    return params, [parameter.grad for parameter in params if parameter.grad is not None]


def _ratio(numerator: Tensor, denominator: Tensor, *, otherwise: float) -> Tensor:
    """The quotient; `otherwise` where one of the two is 0."""
    whole = (numerator > 0) & (denominator > 0)
    return torch.where(whole, numerator / denominator, otherwise)
