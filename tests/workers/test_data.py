"""Every sample of an epoch is seen exactly once, whatever the world does meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from workers.data import SampleOrder, fetch, micro_batches, slices


@given(st.integers(0, 500), st.integers(1, 40))
def test_slices_partition_the_batch_nearly_equally(batch: int, world: int) -> None:
    cut = slices(batch, world)
    assert len(cut) == world
    assert [i for lo, hi in cut for i in range(lo, hi)] == list(range(batch))
    assert max(hi - lo for lo, hi in cut) - min(hi - lo for lo, hi in cut) <= 1


@given(st.integers(0, 100), st.integers(0, 300), st.integers(1, 50))
def test_micro_batches_are_as_few_as_fit(lo: int, length: int, per_worker: int) -> None:
    cut = micro_batches(lo, lo + length, per_worker)
    assert [i for a, b in cut for i in range(a, b)] == list(range(lo, lo + length))
    assert all(0 < b - a <= per_worker for a, b in cut)
    assert len(cut) == -(-length // per_worker)


@given(
    size=st.integers(1, 60),
    seed=st.integers(-5, 2**40),
    steps=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=12),
)
def test_each_epoch_holds_every_sample_once_over_any_resizes(
    size: int, seed: int, steps: list[tuple[int, int, int]]
) -> None:
    cursor, seen = 0, []
    for batch, world, per_worker in steps:
        order = SampleOrder(size, seed)  # every generation starts with a fresh one
        for lo, hi in slices(batch, world):
            for a, b in micro_batches(lo, hi, per_worker):
                epochs, indices = order.keys(cursor + a, cursor + b)
                seen += list(zip(epochs.tolist(), indices.tolist(), strict=True))
        cursor += batch
    for epoch in range(cursor // size):
        assert sorted(i for e, i in seen if e == epoch) == list(range(size))
    rest = [i for e, i in seen if e == cursor // size]
    assert len(set(rest)) == len(rest) == cursor % size


def test_order_is_a_function_of_seed_and_epoch_and_survives_the_cache() -> None:
    order, other = SampleOrder(100, seed=3), SampleOrder(100, seed=4)
    forwards = [order.permutation(e).clone() for e in range(5)]
    for epoch in reversed(range(5)):
        assert torch.equal(order.permutation(epoch), forwards[epoch])
        assert not torch.equal(other.permutation(epoch), forwards[epoch])
    assert not torch.equal(forwards[0], forwards[1])


def test_keys_are_int64_and_may_be_empty() -> None:
    epochs, indices = SampleOrder(7, 0).keys(14, 14)
    assert epochs.dtype == indices.dtype == torch.int64
    assert len(epochs) == len(indices) == 0


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        SampleOrder(0, 0)
    with pytest.raises(ValueError, match="start <= stop"):
        SampleOrder(5, 0).keys(3, 2)
    with pytest.raises(ValueError, match="cannot cut"):
        slices(4, 0)
    with pytest.raises(ValueError, match="at least one sample"):
        micro_batches(0, 4, 0)


class Squares(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([float(index) ** 2]), "y": index}


def jitter(sample: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    return {**sample, "x": sample["x"] + torch.rand(1, generator=generator)}


def test_fast_path_equals_the_slow_one() -> None:
    dataset = TensorDataset(torch.arange(24.0).view(12, 2), torch.arange(12))
    epochs, indices = SampleOrder(12, 0).keys(5, 12)
    fast = fetch(dataset, None, epochs, indices, 0)
    slow = fetch(dataset, lambda sample, _: sample, epochs, indices, 0)
    assert type(fast) is type(slow) is list
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_getitems_is_used_where_it_exists() -> None:
    epochs, indices = SampleOrder(5, 0).keys(0, 5)
    batch = fetch(Subset(Squares(), [9, 8, 7, 6, 5]), None, epochs, indices, 0)
    assert batch["y"].tolist() == [9 - i for i in indices.tolist()]


@given(st.integers(1, 6), st.integers(1, 4))
def test_augmentation_does_not_depend_on_who_loads(world: int, per_worker: int) -> None:
    order = SampleOrder(20, seed=1)
    whole = fetch(Squares(), jitter, *order.keys(10, 30), 1)
    ranges = [m for lo, hi in slices(20, world) for m in micro_batches(10 + lo, 10 + hi, per_worker)]
    parts = [fetch(Squares(), jitter, *order.keys(a, b), 1)["x"] for a, b in ranges]
    assert torch.equal(torch.cat(parts), whole["x"])


def test_augmentation_differs_between_epochs_and_seeds() -> None:
    one, index = torch.ones(1, dtype=torch.int64), torch.tensor([4])
    looks = {fetch(Squares(), jitter, e * one, index, seed)["x"].item() for e in (0, 1, 2) for seed in (0, 1)}
    assert len(looks) == 6


def test_nothing_to_fetch_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        fetch(Squares(), None, *SampleOrder(20, 0).keys(3, 3), 0)
