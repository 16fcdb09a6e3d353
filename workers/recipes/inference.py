"""What a model answers to many inputs, for an evaluation: batch by batch, in eval mode, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BATCH = 500
"""Inputs of one forward pass."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in eval mode and no gradient is kept; it leaves the mode as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def answers(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The function of all inputs, in fp32 on the CPU."""
    return torch.cat([function(part).float().cpu() for part in torch.split(inputs, BATCH)])
