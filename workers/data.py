"""The global order of samples, addressed by samples seen.

A position is the number of samples that the whole job has seen before: position p lies in epoch
p // size, and what stands there is a function of (seed, epoch) alone. So the world size, a resize or
a fault decides only who loads a sample, never which one comes next or what it looks like.

    positions [s, s+B)  --slices-->  one range a worker  --micro_batches-->  ranges that fit  --fetch-->  batch

The order is reproducible for one torch version: torch does not promise `randperm` across releases.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

Augment = Callable[[Any, torch.Generator], Any]
"""(sample, generator) -> sample; all its randomness comes from the generator."""


class SampleOrder:
    """The order of `size` samples in every epoch of a job.

    Raises ValueError where size is below 1.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"a data set needs at least one sample, this one has {size}")
        self.size = size
        self.seed = seed
        self._recent: dict[int, Tensor] = {}

    def permutation(self, epoch: int) -> Tensor:
        """The sample indices of one epoch in order, int64 of shape (size,). Shared: do not write into it."""
        order = self._recent.pop(epoch, None)
        if order is None:
            order = torch.randperm(self.size, generator=_generator(self.seed, epoch))
        self._recent[epoch] = order
        if len(self._recent) > 2:
            del self._recent[next(iter(self._recent))]
        return order

    def keys(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Epoch and sample index at each position in [start, stop): two int64 tensors of shape (stop - start,)."""
        if not 0 <= start <= stop:
            raise ValueError(f"positions must satisfy 0 <= start <= stop, got [{start}, {stop})")
        positions = torch.arange(start, stop)
        epochs, offsets = positions // self.size, positions % self.size
        indices = torch.empty_like(positions)
        for epoch in range(start // self.size, -(-stop // self.size)):
            here = epochs == epoch
            indices[here] = self.permutation(epoch)[offsets[here]]
        return epochs, indices


def slices(batch: int, world: int) -> list[tuple[int, int]]:
    """Cut [0, batch) into `world` contiguous ranges whose lengths differ by one at most, the longer ones first.

    With fewer samples than workers the last ranges are empty.
    """
    if batch < 0 or world < 1:
        raise ValueError(f"cannot cut {batch} samples for {world} workers")
    length, longer = divmod(batch, world)
    bounds = [rank * length + min(rank, longer) for rank in range(world + 1)]
    return list(itertools.pairwise(bounds))


def micro_batches(lo: int, hi: int, per_worker: int) -> list[tuple[int, int]]:
    """Cut [lo, hi) into as few near-equal ranges as hold at most `per_worker` samples each; none if it is empty."""
    if per_worker < 1:
        raise ValueError(f"a micro-batch holds at least one sample, not {per_worker}")
    count = -(-(hi - lo) // per_worker)
    return [(lo + a, lo + b) for a, b in slices(hi - lo, count)] if count > 0 else []


def fetch(dataset: Dataset[Any], augment: Augment | None, epochs: Tensor, indices: Tensor, seed: int) -> Any:
    """The collated batch of the samples that `SampleOrder.keys` names.

    `augment` gets each sample with a generator keyed by (seed, epoch, index), so a sample looks the
    same on whichever worker loads it, and different in every epoch. A plain TensorDataset without
    augmentation is indexed as a whole. Raises ValueError for no samples: nothing could be collated.
    """
    if not len(indices):
        raise ValueError("there is no sample to fetch")
    if augment is None and type(dataset) is TensorDataset:
        return [tensor[indices] for tensor in dataset.tensors]
    samples = _samples(dataset, indices.tolist())
    if augment is not None:
        keys = zip(epochs.tolist(), indices.tolist(), strict=True)
        samples = [augment(s, _generator(seed, *key)) for s, key in zip(samples, keys, strict=True)]
    return default_collate(samples)


def _samples(dataset: Dataset[Any], indices: list[int]) -> list[Any]:
    many = getattr(dataset, "__getitems__", None)
    return list(many(indices)) if many else [dataset[index] for index in indices]


def _generator(*key: int) -> torch.Generator:
    """A generator whose state depends on the key alone; Python's own hash is not stable between processes."""
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
