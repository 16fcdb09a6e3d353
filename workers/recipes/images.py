"""Labelled images that recipes train on: small sets that a package carries, so nothing is downloaded."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from workers.recipes import networks

CLASSES = 10
"""Of every set here."""

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""

TEST_EVERY, SPLIT_SEED = 5, 0  # of the digits; one split for every job, so that scores compare

Name = Literal["digits", "fashion_mnist"]
Labelled = tuple[Tensor, Tensor]
"""Images, float32 in [0, 1] of shape (n, channels, side, side), and labels, int64 of shape (n,)."""


class Images(NamedTuple):
    """A set of labelled images."""

    train: Labelled
    test: Labelled

    @property
    def channels(self) -> int:
        """1: shades of grey."""
        return self.train[0].shape[1]

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return self.train[0].shape[2]

    def encoder(self, name: networks.Name, *, hidden: int, depth: int) -> networks.Encoder:
        """A new one for images of this kind; see `networks.encoder`."""
        return networks.encoder(name, channels=self.channels, side=self.side, hidden=hidden, depth=depth)


def load(name: Name, train_size: int | None = None) -> Images:
    """The set of that name, with so many images to train on, or all. Raises FileNotFoundError, with what to install.

    digits: scikit-learn's copy of the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI
    Machine Learning Repository, 1998); 1437 images of 8 by 8 pixels to train on, 360 to test, in equal shares of each
    class. fashion_mnist: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747; 60,000 and 10,000 of 28 by 28.
    """
    if name == "fashion_mnist":
        return _fashion_mnist(FASHION_MNIST, train_size)
    images, labels = _digits().train
    return _digits()._replace(train=(images[:train_size], labels[:train_size]))


def like(images: Tensor, model: nn.Module) -> Tensor:
    """The images on the device and in the precision of the model's weights."""
    weight = next(model.parameters())
    return images.to(device=weight.device, dtype=weight.dtype)


@cache
def _digits() -> Images:
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32))
    images, labels = table[:, :-1].reshape(-1, 1, 8, 8) / 16, table[:, -1].long()
    shuffled = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(table)))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    tested = torch.zeros(len(table), dtype=torch.bool)
    tested[by_class[::TEST_EVERY]] = True
    return Images((images[~tested], labels[~tested]), (images[tested], labels[tested]))


def _digits_file() -> Path:
    """Where scikit-learn keeps them. To import it for that would cost each worker a second and 150 MB."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise FileNotFoundError("The digits are a file of scikit-learn, which is not installed: pip install it.")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


@cache
def _fashion_mnist(folder: Path, train_size: int | None) -> Images:
    return Images(_idx_pair(folder, "train", train_size), _idx_pair(folder, "t10k", None))


def _idx_pair(folder: Path, part: str, count: int | None) -> Labelled:
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)[:count]
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", header=8)[:count]
    return pixels.float() / 255, labels.long()


def _idx(file: Path, header: int) -> Tensor:
    """The bytes of a file in the format of MNIST (LeCun), without its header of so many bytes."""
    if not file.exists():
        raise FileNotFoundError(
            f"Fashion-MNIST is not on this node ({file} is missing): install Debian's package dataset-fashion-mnist."
        )
    return torch.frombuffer(bytearray(gzip.decompress(file.read_bytes())), dtype=torch.uint8, offset=header)
