"""Image classification from a few labels and many images without one, which an EMA teacher labels."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from workers.recipes import StepContext, images, networks, semi_supervised
from workers.recipes.classify import scores


class PseudoLabel:
    """Classify images of which few have a label; the EMA is the teacher that labels the others.

    FixMatch (Sohn et al. 2020, arXiv 2001.07685) with an EMA as its teacher, or the mean teacher (Tarvainen and Valpola
    2017, arXiv 1703.01780). Pseudo-labelling is a case of Busbridge et al. 2023, arXiv 2307.13813.
    """

    needs_ema: ClassVar[bool] = True

    class Config(semi_supervised.Settings):
        """Settings of `pseudo_label`."""

        method: Literal["pseudo_label", "mean_teacher"] = Field(
            "pseudo_label",
            description="pseudo_label: learn the class that the teacher is sure of. mean_teacher: come near its "
            "probabilities, sure or not; take a larger weight, such as 10.",
        )
        dataset: images.Name = Field("digits", description="digits: 8 by 8 pixels; fashion_mnist: 28 by 28.")
        train_size: int | None = Field(None, ge=100, description="Train on so many images; null: on all.")
        labelled: int = Field(4, ge=1, le=5000, description="Images of each class that keep their label.")
        model: networks.Name = Field("mlp", description="cnn and resnet have BatchNorm, mlp and vit none.")
        hidden: int = Field(
            128, ge=1, le=4096, description="Width: of each layer, or of the first channels; vit: a multiple of 16."
        )
        depth: int = Field(2, ge=1, le=16, description="Layers (mlp, cnn), blocks (vit), blocks a stage (resnet).")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._images = images.load(config.dataset, config.train_size)
        shown, labels = self._images.train
        kept = semi_supervised.balanced(labels, config.labelled)
        self._data = semi_supervised.Pairs(shown, shown[kept], labels[kept])
        criterion = semi_supervised.Classes(method=config.method, threshold=config.threshold)
        self._lessons = semi_supervised.Lessons(config, criterion, (shown[kept], labels[kept]), len(shown))

    def augment(
        self, sample: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weak and strong view of the unlabelled image, weak view of the labelled one, and its label."""
        unlabelled, labelled, label = sample
        views = weak(unlabelled, generator), strong(unlabelled, generator), weak(labelled, generator)
        return *views, label

    def model(self) -> nn.Module:
        """The network: images in, logits of shape (n, 10) out."""
        config = self._config
        with networks.initialized(self._seed):
            encoder = self._images.encoder(config.model, hidden=config.hidden, depth=config.depth)
            return semi_supervised.Pupil(nn.Sequential(encoder, nn.Linear(encoder.features, images.CLASSES)))

    def train_data(self) -> semi_supervised.Pairs:
        """All training images without their labels, each beside one of the few that keep it."""
        return self._data

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """Cross entropy of the labelled images, and the method's loss of the others. Raises ValueError without EMA."""
        return self._lessons.loss(model, batch, step)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Cross entropy and accuracy on the test images."""
        return scores(model, self._images.test)


def weak(image: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by up to an eighth of its side; background moves in."""
    side = image.shape[-1]
    reach = max(1, side // 8)
    down, right = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
    return functional.pad(image, [reach] * 4)[:, down : down + side, right : right + side]


def strong(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, sheared, resized and shifted at random, with a square cut out; not flipped, which makes other digits.

    The square: DeVries and Taylor 2017, arXiv 1708.04552.
    """
    turn, shear, size, right, down = (2 * torch.rand(5, generator=generator) - 1).tolist()
    angle, zoom = math.radians(20) * turn, 1.2**size
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    maps = torch.tensor([[cosine, -sine + 0.2 * shear, 0.2 * right], [sine, cosine, 0.2 * down]])
    grid = functional.affine_grid(maps[None], [1, *image.shape], align_corners=False)
    moved = functional.grid_sample(image[None], grid, align_corners=False)[0]
    side = image.shape[-1]
    hole = side // 4
    top, left = torch.randint(side - hole + 1, (2,), generator=generator).tolist()
    moved[:, top : top + hole, left : left + hole] = 0
    return moved
