"""BatchNorm at another batch size: its momentum, its counters, and one set of running statistics for all workers.

A running statistic is an average over forward passes, so its momentum follows kappa like any other (formulas:
`api_schemas.scaling`). Every worker sees other samples, so the statistics are averaged across workers before anyone
reads them; those of rank 0 alone spoil every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from api_schemas import scaling

AllReduce = Callable[[Tensor], object]
"""Sums a flat tensor over all workers, in place."""


class BatchNorms:
    """All BatchNorm modules of a model, with the momenta that they had when this was made: the base values.

    Make it once, before anything is scaled. The modules that have no momentum (cumulative averages) keep none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._base = [module.momentum for module in self._modules]

    def __len__(self) -> int:
        return len(self._modules)

    @property
    def base_momentum(self) -> float | None:
        """The base momentum of the first module that has one; None where there is none."""
        return next((momentum for momentum in self._base if momentum is not None), None)

    def scale(self, kappa: float, forwards: int = 1, base_forwards: int = 1) -> None:
        """Set every momentum for kappa, from the base value: calls do not compound.

        `forwards` counts the training forwards of one optimizer step on one worker, `base_forwards` in the base run.
        """
        for module, base in zip(self._modules, self._base, strict=True):
            module.momentum = scaling.batchnorm_momentum(base, kappa, forwards, base_forwards)

    @torch.no_grad()
    def rescale_counters(self, kappa_old: float, kappa_new: float) -> None:
        """Convert every `num_batches_tracked` at a switch; a counter above 0 stays above 0."""
        for module in self._modules:
            counter = module.num_batches_tracked
            if counter is not None:
                counter.fill_(scaling.rescale_counter(int(counter), kappa_old, kappa_new, integer=True))


@torch.no_grad()
def average_buffers(model: nn.Module, weight: float, all_reduce: AllReduce) -> None:
    """Replace every floating-point buffer by its weighted mean over the workers, in one all-reduce.

    `weight` is this worker's share; the shares of all workers add up to 1. With 0 what lies in the buffers here does
    not matter, NaN included. Summed in float64, so that a buffer that is equal everywhere comes back unchanged.
    Does nothing, and reduces nothing, for a model without such buffers.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).double() for buffer in buffers])
    flat = flat.mul_(weight) if weight else flat.zero_()
    all_reduce(flat)
    means = torch.split(flat, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """A context in which a model in eval mode normalizes by the batch at hand; running statistics stay as they are."""
    modules = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(module.training, module.track_running_stats) for module in modules]
    for module in modules:
        module.training, module.track_running_stats = True, False
    try:
        yield
    finally:
        for module, (training, tracks) in zip(modules, before, strict=True):
            module.training, module.track_running_stats = training, tracks


def copy_buffers(source: list[Tensor], target: list[Tensor]) -> None:
    """Copy tensors over their counterparts, of the same shapes and dtypes, in one call for each dtype.

    Lists of one dtype take the fast path: a single kernel on a GPU.
    """
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for new, old in zip(source, target, strict=True):
        sources, targets = by_dtype.setdefault(new.dtype, ([], []))
        sources.append(new)
        targets.append(old)
    with torch.no_grad():
        for sources, targets in by_dtype.values():
            torch._foreach_copy_(targets, sources)


class BufferSnapshot:
    """A copy of all buffers of a model, to undo what the forward passes of an abandoned step did to them.

    The first copy is taken at once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._saved = [buffer.detach().clone() for buffer in model.buffers()]

    def take(self) -> None:
        """Copy the buffers as they are now over the copy taken before."""
        copy_buffers(list(self._model.buffers()), self._saved)

    def restore(self) -> None:
        """Put the copied values back into the model's buffers."""
        copy_buffers(self._saved, list(self._model.buffers()))
