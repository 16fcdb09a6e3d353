"""Features of images learned without labels, by predicting how a teacher sees another view of the same image."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.batchnorm import batch_statistics
from workers.recipes import StepContext, images, networks, probes, self_supervised
from workers.recipes.views import Area


class Byol:
    """Learn image features without labels: predict what the EMA, as teacher, makes of another view (BYOL).

    Grill et al. 2020, arXiv 2006.07733. The student is an encoder, a projector and a predictor; the teacher (the
    paper's target network) is the job's EMA of it, of which encoder and projector are used. As published, the teacher's
    BatchNorm normalizes by the batch: with the student's running statistics features get worse. Both views go through
    a network together, so BatchNorm sees twice as many images as the batch has, and never one alone.
    """

    needs_ema: ClassVar[bool] = True

    class Config(self_supervised.Settings):
        """Settings of `byol`."""

        head_hidden: int = Field(256, ge=1, le=8192, description="Width of projector and predictor inside.")
        projection: int = Field(64, ge=2, le=4096, description="Dimensions in which student and teacher are compared.")
        area: Area = Field((0.5, 1.0), description="Least and largest crop, as shares of the image's area.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._images = images.load(config.dataset, config.train_size)
        self._views = config.views(self._images.side, config.area)

    def model(self) -> nn.Module:
        """The student: images in, `Seen` out."""
        config = self._config
        with networks.initialized(self._seed):
            encoder = self._images.encoder(config.model, hidden=config.hidden, depth=config.depth)
            return _Student(encoder, config.head_hidden, config.projection)

    def train_data(self) -> TensorDataset:
        """Images alone."""
        return TensorDataset(self._images.train[0])

    def augment(self, sample: tuple[Tensor], generator: torch.Generator) -> Tensor:
        """Two views of an image, stacked."""
        return self._views.of(sample[0], 2, generator)

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """Mean over images of 2 - 2 cos between prediction and teacher, for the first view plus for the second."""
        views = images.like(batch, model)
        shown, pairs = views.flatten(0, 1), (len(views), 2, -1)
        with torch.no_grad(), batch_statistics(step.teacher):
            taught = _unit(step.teacher(shown).projected).reshape(pairs)
        predicted = _unit(model(shown).predicted).reshape(pairs)
        cosines = (predicted * taught.flip(1)).sum(dim=2)
        mean: Tensor = (2 - 2 * cosines).sum(dim=1).mean()
        return mean

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy on test images of labels read from the encoder's features: by kNN, and by a linear classifier."""
        config = self._config
        return probes.scores(
            model,
            lambda shown: model(images.like(shown, model)).features,
            self._images,
            neighbours=config.neighbours,
            limit=config.probed,
        )


class Seen(NamedTuple):
    """What the student makes of n images, each of shape (n, dimensions)."""

    features: Tensor
    projected: Tensor
    predicted: Tensor


class _Student(nn.Module):
    """Encoder, projector and predictor."""

    def __init__(self, encoder: networks.Encoder, width: int, dimensions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = _head(encoder.features, width, dimensions)
        self.predictor = _head(dimensions, width, dimensions)

    def forward(self, shown: Tensor) -> Seen:
        """All three, of images of shape (n, channels, side, side)."""
        features = self.encoder(shown)
        projected = self.projector(features)
        return Seen(features, projected, self.predictor(projected))


def _head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, outputs))


def _unit(vectors: Tensor) -> Tensor:
    """At length 1, in fp32 at least: in bf16 a cosine near 1 says little."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
