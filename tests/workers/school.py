"""A plain loop that trains a recipe with its EMA, for tests."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from workers.data import SampleOrder, fetch
from workers.ema import Ema
from workers.recipes import StepContext, augmentation

BATCH, LR, MOMENTUM = 64, 3e-3, 0.97


def train(recipe: Any, epochs: float) -> tuple[nn.Module, list[float]]:
    """The trained model, and the loss of each step."""
    model, data = recipe.model().train(), recipe.train_data()
    size = len(data)
    order, ema = SampleOrder(size, 0), Ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    losses = []
    for start in range(0, int(epochs * size), BATCH):
        batch = fetch(data, augmentation(recipe), *order.keys(start, start + BATCH), 0)
        optimizer.zero_grad()
        loss = recipe.loss(model, batch, step(ema.module, samples=start, epoch=start / size))
        loss.backward()
        optimizer.step()
        ema.after_step(model, MOMENTUM, 1.0)
        losses.append(loss.item())
    return model, losses


def teacher(model: nn.Module) -> nn.Module:
    """What the EMA of a model is before the first step."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def step(ema: nn.Module | None, **where: Any) -> StepContext:
    """The context of a loss at the base batch, at the beginning unless told otherwise."""
    return StepContext(**({"ema": ema, "samples": 0, "epoch": 0.0, "kappa": 1.0} | where))


def first_batch(recipe: Any, count: int = 32) -> Any:
    """The first samples of a job, augmented."""
    data = recipe.train_data()
    return fetch(data, augmentation(recipe), *SampleOrder(len(data), 0).keys(0, count), 0)


def spread(features: Tensor) -> float:
    """How far features of shape (n, d) differ between images, over their length: 0 where all are the same."""
    lengths = features.detach().norm(dim=1)
    return float(features.detach().std(dim=0).norm() / lengths.mean())
