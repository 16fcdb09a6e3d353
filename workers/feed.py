"""Batches on their way to the model: the next is made while the last one trains, and resizes do not disturb that."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import Dataset

from workers.data import Augment, SampleOrder, fetch
from workers.device import Device

Range = tuple[int, int]
"""Positions [start, stop) of the whole job's samples."""


class Feed:
    """The batches of one worker, on its device.

    Where making one takes time (augmentation, the way to a GPU) a thread works ahead. It lives as long as the worker; a
    batch that was expected and is not wanted any more, after a resize say, is dropped.
    """

    def __init__(self, dataset: Dataset[Any], augment: Augment | None, order: SampleOrder, device: Device) -> None:
        self._dataset = dataset
        self._augment = augment
        self._order = order
        self._device = device
        ahead = augment is not None or device.is_gpu
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") if ahead else None
        self._coming: tuple[Range, Future[Any]] | None = None

    def expect(self, wanted: Range | None) -> None:
        """This will probably be wanted next; None: nothing will."""
        self._coming = (wanted, self._ahead.submit(self._make, wanted)) if self._ahead and wanted else None

    def batch(self, wanted: Range) -> Any:
        """The samples at these positions. Raises what the data set or the augmentation raises."""
        if self._ahead is None:
            return self._device.put(self._make(wanted))
        if self._coming is None or self._coming[0] != wanted:
            self.expect(wanted)  # a data set need not bear two threads: what works ahead makes this one too
        assert self._coming is not None, "it is expected by now"
        (_, made), self._coming = self._coming, None
        return self._device.put(made.result())

    def _make(self, wanted: Range) -> Any:
        epochs, indices = self._order.keys(*wanted)
        return self._device.pin(fetch(self._dataset, self._augment, epochs, indices, self._order.seed))
