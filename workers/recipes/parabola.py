"""The paper's toy: one weight at the bottom of a noisy parabola, where every rule can be checked to the last digit."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from workers.recipes import StepContext


class Parabola:
    """Roll down a noisy parabola: one weight, in double precision, as in the paper's first experiment.

    The loss is a theta^2 / 2. A sample is a number z from a normal distribution, and adds z sqrt(b (a theta)^2 + c) to
    the gradient a theta. A batch of B samples has that variance divided by B, so with `batch.base: 1` it is the noise
    that Busbridge et al. 2023 (arXiv 2307.13813, section 3.1 and appendix E) give to kappa = 1.
    """

    class Config(BaseModel):
        """Settings of `parabola`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        a: float = Field(1.0, gt=0, description="Curvature.")
        b: float = Field(0.5, ge=0, description="Noise that shrinks with the gradient, as a variance.")
        c: float = Field(0.0, ge=0, description="Noise that is always there, as a variance.")
        theta0: float = Field(1.0, allow_inf_nan=False, description="Where the weight starts, and its average.")
        size: int = Field(2**16, ge=1, le=2**24, description="Samples of an epoch.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed

    def model(self) -> nn.Module:
        """The weight: a gradient's noise in, of shape (n, 1), the loss of each sample out, of shape (n,)."""
        return _Slope(self._config)

    def train_data(self) -> TensorDataset:
        """The noise, float64 of shape (size, 1)."""
        generator = torch.Generator().manual_seed(self._seed)
        return TensorDataset(torch.randn(self._config.size, 1, generator=generator, dtype=torch.float64))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """Mean over the samples."""
        (noise,) = batch
        losses: Tensor = model(noise)
        return losses.mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss without noise, and where the weight is."""
        theta = next(model.parameters()).item()
        return {"loss": self._config.a * theta**2 / 2, "theta": theta}


class _Slope(nn.Module):
    def __init__(self, config: Parabola.Config) -> None:
        super().__init__()
        self._config = config
        self.theta = nn.Parameter(torch.tensor([config.theta0], dtype=torch.float64))

    def forward(self, noise: Tensor) -> Tensor:
        """Losses whose gradient is a theta, plus the noise at this theta."""
        config, at = self._config, self.theta.detach()
        deviation = (config.b * (config.a * at) ** 2 + config.c).sqrt()
        losses: Tensor = config.a * self.theta**2 / 2 + self.theta * deviation * noise.squeeze(1)
        return losses
