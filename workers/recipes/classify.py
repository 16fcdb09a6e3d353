"""Image classification, small enough for a laptop and real enough to tell a good batch size from a bad one."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.data import Augment
from workers.recipes import StepContext

TEST_EVERY, SPLIT_SEED = 5, 0  # of 1797 images; one split for every job, so that scores compare
CLASSES, SIDE = 10, 8


class Classify:
    """Classify images of handwritten digits with a small MLP or a convolutional network.

    Data: scikit-learn's copy of the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI
    Machine Learning Repository, 1998), 8 by 8 pixels scaled to [0, 1]; 1437 images to train on, 360 to test.
    """

    class Config(BaseModel):
        """Settings of `classify`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        dataset: Literal["digits"] = Field("digits", description="What to classify.")
        model: Literal["mlp", "cnn"] = Field("mlp", description="cnn has BatchNorm, mlp none.")
        hidden: int = Field(64, ge=1, le=4096, description="Width of each hidden layer, or channels of a convolution.")
        depth: int = Field(2, ge=1, le=16, description="Hidden layers, or convolutions.")
        augment: int = Field(0, ge=0, le=4, description="Shift each image by up to so many pixels both ways.")
        label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed

    @property
    def augment(self) -> Augment | None:
        """A random shift, where the config asks for one."""
        return self._shifted if self._config.augment else None

    def model(self) -> nn.Module:
        """The network: images of shape (n, 1, 8, 8) in, logits of shape (n, 10) out."""
        build = _mlp if self._config.model == "mlp" else _cnn
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self._seed)
            return build(self._config.hidden, self._config.depth)

    def train_data(self) -> TensorDataset:
        """Images, float32 of shape (1437, 1, 8, 8), and labels, int64 of shape (1437,)."""
        return TensorDataset(*_digits()[0])

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """Mean cross entropy."""
        images, labels = batch
        logits = model(_like(images, model))
        return functional.cross_entropy(logits, labels, label_smoothing=self._config.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Cross entropy, without smoothing, and accuracy on the test images."""
        images, labels = _digits()[1]
        training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(_like(images, model)).float().cpu()
        model.train(training)
        accuracy = (logits.argmax(dim=1) == labels).double().mean()
        return {"loss": functional.cross_entropy(logits, labels).item(), "accuracy": accuracy.item()}

    def _shifted(self, sample: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        image, label = sample
        reach = self._config.augment
        down, right = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        padded = functional.pad(image, [reach] * 4)
        return padded[:, down : down + SIDE, right : right + SIDE], label


def _mlp(hidden: int, depth: int) -> nn.Module:
    widths = [SIDE * SIDE, *[hidden] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def _cnn(hidden: int, depth: int) -> nn.Module:
    channels = [1, *[hidden] * depth]
    layers: list[nn.Module] = []
    for channels_in, channels_out in pairwise(channels):
        convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(hidden * SIDE * SIDE // 4, CLASSES))


def _like(images: Tensor, model: nn.Module) -> Tensor:
    """The images on the device and in the precision of the model's weights."""
    weight = next(model.parameters())
    return images.to(device=weight.device, dtype=weight.dtype)


@cache
def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(images, labels) to train on and to test with, split by class in equal shares."""
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32))
    images, labels = table[:, :-1].reshape(-1, 1, SIDE, SIDE) / 16, table[:, -1].long()
    shuffled = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(table)))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    tested = torch.zeros(len(table), dtype=torch.bool)
    tested[by_class[::TEST_EVERY]] = True
    return (images[~tested], labels[~tested]), (images[tested], labels[tested])


def _digits_file() -> Path:
    """Where scikit-learn keeps them. To import it for that would cost each worker a second and 150 MB."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the digits are a file of scikit-learn, which is not installed", name="sklearn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
