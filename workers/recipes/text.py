"""Text that recipes train on, as bytes: files that are there anyway, so nothing is downloaded."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

VALUES = 256
"""Of a byte."""

_ASIDE = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
"""Folders of the standard library that differ from one installation to the next."""


class Text(NamedTuple):
    """Bytes, uint8 of shape (n,): to train on, and held out."""

    train: Tensor
    test: Tensor


class Windows(Dataset[Tensor]):
    """Windows of `context` + 1 bytes, `stride` apart; the last one ends with the text.

    With a stride of at most `context` every byte but the first is a target. Raises ValueError where the text is shorter
    than a window.
    """

    def __init__(self, text: Tensor, context: int, stride: int) -> None:
        if len(text) <= context:
            raise ValueError(f"a text of {len(text)} bytes holds no window of {context} and the byte that follows")
        self._text = text
        self._length = context + 1
        self._starts = [*range(0, len(text) - self._length, stride), len(text) - self._length]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Tensor:
        start = self._starts[index]
        return self._text[start : start + self._length]


def load(path: Path | None, size: int, held_out: float) -> Text:
    """The first `size` bytes below a path, or of the standard library; the last `held_out` of them are for tests.

    Raises FileNotFoundError where there is nothing, and ValueError where it is too short to cut.
    """
    folder = path or Path(sysconfig.get_path("stdlib"))
    text = _read(_library(folder) if path is None else _files(folder), size)
    if not len(text):
        raise FileNotFoundError(f"There is no text to train on at {folder.absolute()}.")
    trained = len(text) - round(held_out * len(text))
    if len(text) - trained < 2:
        raise ValueError(f"{len(text)} bytes of text at {folder} are too few to hold out a share of {held_out:g}.")
    return Text(text[:trained], text[trained:])


def _library(folder: Path) -> list[Path]:
    """Python's own modules, by name: the same on all nodes that run the same version of Python."""
    files = (file for file in folder.rglob("*.py") if not file.name.startswith("_sysconfigdata"))  # how it was built
    return sorted(file for file in files if _ASIDE.isdisjoint(file.relative_to(folder).parts))


def _files(path: Path) -> list[Path]:
    """A file alone, or all below a folder, by name, hidden ones apart."""
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _read(files: list[Path], size: int) -> Tensor:
    """One file after the other, until there are so many bytes."""
    read = bytearray()
    for file in files:
        with file.open("rb") as opened:
            read += opened.read(size - len(read))
        if len(read) >= size:
            break
    return torch.frombuffer(read, dtype=torch.uint8) if read else torch.empty(0, dtype=torch.uint8)
