"""The model EMA: a shadow of the weights that follows them with rho^kappa.

Order of a step: `before_step`, `optimizer.step()`, `after_step`. The shadow averages the weights *after* the optimizer
step, as torch and timm do; in the order "before" those before it, as the paper defines it; with `interpolate` both,
which removes to second order what a larger step does to the average.

Sources: the rule rho' = rho^kappa is Busbridge et al. 2023, arXiv 2307.13813; the interpolation is derived for this
project. Both are computed by `api_schemas.scaling`.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from api_schemas import scaling
from workers.batchnorm import copy_buffers


class Ema:
    """The shadow of `model` (the bare module, not its DDP wrapper), in `module`, always in eval mode.

    - Parameters below 32 bits are averaged, and kept, in fp32: in bf16 an update of 1 - rho < 2^-9 rounds to nothing.
      Others keep their dtype.
    - Buffers are copied, floating-point ones too: BatchNorm's running statistics are averages already, with a momentum
      of their own (see `workers.batchnorm`), and integer counters have no average.
    - `interpolate` costs one more copy of the parameters.
    """

    def __init__(
        self, model: nn.Module, *, order: Literal["after", "before"] = "after", interpolate: bool = False
    ) -> None:
        self.module: nn.Module = copy.deepcopy(model).eval().requires_grad_(False)
        for parameter in self.module.parameters():
            parameter.data = _wide(parameter.data)
        self.order = order
        self.interpolate = interpolate
        self._before: list[Tensor] | None = None

    @torch.no_grad()
    def before_step(self, model: nn.Module, momentum_base: float, kappa: float) -> None:
        """What is done with the weights before the optimizer step; arguments and errors as of `after_step`."""
        if self.order == "before":
            self._move(model, momentum_base, kappa)
        if not self.interpolate:
            return
        weights: list[Tensor] = list(model.parameters())
        if self._before is None:
            self._before = [torch.empty_like(shadow) for shadow in self.module.parameters()]
        torch._foreach_copy_(self._before, weights)

    @torch.no_grad()
    def after_step(self, model: nn.Module, momentum_base: float, kappa: float) -> None:
        """What is done with the weights after an optimizer step at batch kappa * B0.

        `momentum_base` is rho at the base batch, for this step: a schedule may change it every time. Raises
        ScalingError (`decay_out_of_range`, `kappa_invalid`), and RuntimeError where `before_step` was left out.
        """
        if self.interpolate and self._before is None:
            raise RuntimeError("Ema.before_step has to be called before the optimizer step when it interpolates")
        if self.order == "after":
            self._move(model, momentum_base, kappa)
        self.copy_buffers(model)

    def _move(self, model: nn.Module, momentum_base: float, kappa: float) -> None:
        """The shadow towards the weights."""
        coefficients = scaling.ema_interpolation(momentum_base, kappa)
        shadow: list[Tensor] = list(self.module.parameters())
        weights = [_wide(parameter) for parameter in model.parameters()]
        # The coefficients of the weights add up to 1 - rho^kappa, without the cancellation near rho = 1.
        torch._foreach_lerp_(shadow, weights, coefficients.c_old + coefficients.c_new)
        if self._before is not None:
            # A share c_old of them belongs to the weights before the step.
            torch._foreach_add_(shadow, torch._foreach_sub(self._before, weights), alpha=coefficients.c_old)

    def copy_buffers(self, model: nn.Module) -> None:
        """Take over the model's buffers, as `after_step` does."""
        copy_buffers(list(model.buffers()), list(self.module.buffers()))


def _wide(tensor: Tensor) -> Tensor:
    """The tensor itself, or its fp32 copy if it is a narrower floating-point one."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
