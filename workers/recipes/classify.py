"""Image classification, small enough for a laptop and real enough to tell a good batch size from a bad one."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.data import Augment
from workers.recipes import StepContext, images, networks
from workers.recipes.inference import answers, evaluating


class Classify:
    """Classify images of digits or clothes; the EMA is a Polyak-Ruppert average that is evaluated beside the weights.

    Averaging the iterates: Polyak and Juditsky 1992. Supervised training is the first case of Busbridge et al. 2023,
    arXiv 2307.13813, section 3.2. Data: `workers.recipes.images`.
    """

    class Config(BaseModel):
        """Settings of `classify`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        dataset: images.Name = Field("digits", description="digits: 8 by 8 pixels; fashion_mnist: 28 by 28.")
        train_size: int | None = Field(None, ge=100, description="Train on so many images; null: on all.")
        model: networks.Name = Field("mlp", description="cnn and resnet have BatchNorm, mlp and vit none.")
        hidden: int = Field(
            64, ge=1, le=4096, description="Width: of each layer, or of the first channels; vit: a multiple of 16."
        )
        depth: int = Field(2, ge=1, le=16, description="Layers (mlp, cnn), blocks (vit), blocks a stage (resnet).")
        augment: int = Field(0, ge=0, le=4, description="Shift each image by up to so many pixels both ways.")
        label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._images = images.load(config.dataset, config.train_size)

    @property
    def augment(self) -> Augment | None:
        """A random shift, where the config asks for one."""
        return self._shifted if self._config.augment else None

    def model(self) -> nn.Module:
        """The network: images in, logits of shape (n, 10) out."""
        config = self._config
        with networks.initialized(self._seed):
            encoder = self._images.encoder(config.model, hidden=config.hidden, depth=config.depth)
            return nn.Sequential(encoder, nn.Linear(encoder.features, images.CLASSES))

    def train_data(self) -> TensorDataset:
        """Images and labels."""
        return TensorDataset(*self._images.train)

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """Mean cross entropy."""
        shown, labels = batch
        logits = model(images.like(shown, model))
        return functional.cross_entropy(logits, labels, label_smoothing=self._config.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Cross entropy, without smoothing, and accuracy on the test images."""
        return scores(model, self._images.test)

    def _shifted(self, sample: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        image, label = sample
        reach, side = self._config.augment, self._images.side
        down, right = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        padded = functional.pad(image, [reach] * 4)
        return padded[:, down : down + side, right : right + side], label


def scores(model: nn.Module, test: images.Labelled) -> dict[str, float]:
    """Cross entropy and accuracy; leaves the model in the mode that it was in."""
    with evaluating(model):
        logits = answers(lambda part: model(images.like(part, model)), test[0])
    accuracy = (logits.argmax(dim=1) == test[1]).double().mean()
    return {"loss": functional.cross_entropy(logits, test[1]).item(), "accuracy": accuracy.item()}
