"""Batches made ahead: the same ones, whatever was expected, and nothing that went wrong is swallowed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from workers.data import SampleOrder, fetch
from workers.device import Device
from workers.feed import Feed

SIZE = 20
DATA = TensorDataset(torch.arange(SIZE).float().unsqueeze(1))
ORDER = SampleOrder(SIZE, seed=3)


def shifted(sample: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return (sample[0] + torch.rand(1, generator=generator), *sample[1:])


def plain(start: int, stop: int, augment: Any) -> Any:
    return fetch(DATA, augment, *ORDER.keys(start, stop), ORDER.seed)


ranges = st.tuples(st.integers(0, 3 * SIZE), st.integers(1, SIZE)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@pytest.mark.parametrize("augment", [None, shifted])
@given(steps=st.lists(st.tuples(ranges, st.none() | ranges), max_size=8))
def test_what_was_expected_changes_no_batch(augment: Any, steps: list[tuple[Any, Any]]) -> None:
    feed = Feed(DATA, augment, ORDER, Device())
    for wanted, expected in steps:
        assert torch.equal(feed.batch(wanted)[0], plain(*wanted, augment)[0])
        feed.expect(expected)


def test_the_next_batch_is_made_while_the_last_one_trains() -> None:
    made = threading.Event()

    def noted(sample: tuple[Tensor, ...], _: torch.Generator) -> tuple[Tensor, ...]:
        made.set()
        return sample

    feed = Feed(DATA, noted, ORDER, Device())
    feed.expect((0, 4))
    assert made.wait(10)


def test_one_thread_alone_touches_the_data_set() -> None:
    threads = set()

    def noted(sample: tuple[Tensor, ...], _: torch.Generator) -> tuple[Tensor, ...]:
        threads.add(threading.get_ident())
        return sample

    feed = Feed(DATA, noted, ORDER, Device())
    for start in range(5):
        feed.batch((start, start + 2))
        feed.expect((start + 1, start + 3) if start % 2 else (0, 1))
    assert len(threads) == 1


def test_an_augmentation_that_raises_is_heard_of_when_its_batch_is_wanted() -> None:
    def fails(sample: Any, _: torch.Generator) -> Any:
        raise ZeroDivisionError(f"at {sample[0].item()}")

    feed = Feed(DATA, fails, ORDER, Device())
    feed.expect((0, 4))
    with pytest.raises(ZeroDivisionError):
        feed.batch((0, 4))
