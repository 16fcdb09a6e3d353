"""How a process that trains uses memory: large tensors in huge pages, and freed ones as room for the next step."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 32 * 2**20
"""Bytes, the most that glibc takes; a larger block is the system's own, and goes back to it when freed."""
NEVER = 2**31 - 1


def keep() -> None:
    """To be called before the first tensor.

    Activations are freed in each backward pass. By itself malloc hands much of that back to the system, and the next
    step touches new pages: a tenth to a fifth of a step of a small convolutional net. How much is a matter of how the
    blocks happen to lie. Cost: a process stays as large as its largest step was. Elsewhere than with glibc malloc is
    left as it is.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's; small pages cost a step of 26 M parameters 23 %
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, NEVER)
