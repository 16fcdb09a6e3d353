"""The same as a recipe: what is trained, on what, and how well it does. Everything else is the service's."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.recipes import StepContext


class Sine:
    """Fit a noisy sine."""

    class Config(BaseModel):
        """What a job may set."""

        width: int = Field(64, ge=1, description="Of each hidden layer.")

    def __init__(self, config: Config, seed: int) -> None:
        self.width = config.width
        self.seed = seed
        generator = torch.Generator().manual_seed(0)  # the same data for every job, so that scores compare
        x = 6 * torch.rand(2000, 1, generator=generator) - 3
        y = torch.sin(x) + 0.1 * torch.randn(x.shape, generator=generator)
        self.train, self.test = (x[:1600], y[:1600]), (x[1600:], y[1600:])

    def model(self) -> nn.Module:
        """The same weights every time, for the same seed."""
        torch.manual_seed(self.seed)
        width = self.width
        return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def train_data(self) -> TensorDataset:
        """Any data set with a length and an index."""
        return TensorDataset(*self.train)

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """The mean over the batch."""
        x, y = batch
        return functional.mse_loss(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """For the weights, and for their EMA."""
        with torch.no_grad():
            return {"loss": functional.mse_loss(model(self.test[0]), self.test[1]).item()}
