"""Where a worker computes, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from api_schemas.errors import InvalidRequest
from api_schemas.jobs import JobSpec


class Device:
    """The CPU, or the one GPU that Ray shows to this process.

    In bf16 the forward pass runs under autocast; weights, gradients, optimizer state and EMA stay in fp32.
    """

    def __init__(self, kind: str = "cpu", *, bf16: bool = False) -> None:
        self.torch = torch.device("cuda", 0) if kind == "cuda" else torch.device(kind)
        self._bf16 = bf16

    @classmethod
    def of(cls, spec: JobSpec) -> Device:
        """What the spec asks for. Raises InvalidRequest (`no_gpu`) where this process has none."""
        if spec.resources.gpu and not torch.cuda.is_available():
            raise InvalidRequest("The worker was given a GPU, but its PyTorch sees none.", code="no_gpu")
        return cls("cuda" if spec.resources.gpu else "cpu", bf16=spec.precision == "bf16")

    @property
    def is_gpu(self) -> bool:
        """Whether work is queued on it, beside the CPU."""
        return self.torch.type == "cuda"

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for the forward pass."""
        return torch.autocast(self.torch.type, torch.bfloat16) if self._bf16 else nullcontext()

    def pin(self, batch: Any) -> Any:
        """A batch in memory from which a GPU copies by itself."""
        return _each(batch, Tensor.pin_memory) if self.is_gpu else batch

    def put(self, batch: Any) -> Any:
        """A batch on the device: tensors, and lists, tuples and mappings of them."""
        return _each(batch, lambda tensor: tensor.to(self.torch, non_blocking=True)) if self.is_gpu else batch

    def settle(self) -> None:
        """Return once everything that was queued is done: what a GPU reduced is then there, or has failed."""
        if self.is_gpu:
            torch.cuda.synchronize(self.torch)


def _each(batch: Any, change: Any) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _each(part, change) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [_each(part, change) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
