"""BYOL with a vision transformer, as a recipe: what the GPU benchmark trains, by our loop and by hand."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.recipes import StepContext


class Vit(nn.Module):
    """ViT (Dosovitskiy et al., arXiv 2010.11929) with BYOL's projector (Grill et al., arXiv 2006.07733) as its head.

    Images of shape (n, 3, image, image) -> (n, 256).
    """

    def __init__(self, *, image: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-6
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.projector = head(width)
        self.predictor = head(256)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Projection and its prediction."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        projection = self.projector(self.norm(x[:, 0]))
        return projection, self.predictor(projection)


def head(width: int) -> nn.Sequential:
    """BYOL's two-layer perceptron."""
    return nn.Sequential(nn.Linear(width, 4096), nn.BatchNorm1d(4096), nn.ReLU(), nn.Linear(4096, 256))


def byol_loss(online: nn.Module, target: nn.Module, views: tuple[Tensor, Tensor]) -> Tensor:
    """2 - 2 cos between each view's prediction and the other's target projection, symmetric."""
    with torch.no_grad():
        wanted = [target(view)[0] for view in views]
    given = [online(view)[1] for view in views]
    pairs = zip(given, reversed(wanted), strict=True)
    return torch.stack([2 - 2 * functional.cosine_similarity(p, z, dim=1).mean() for p, z in pairs]).sum()


def two_views(images: Tensor) -> tuple[Tensor, Tensor]:
    """An image and its mirror image: augmentation is not what is measured."""
    return images, images.flip(3)


class Byol:
    """BYOL on made images."""

    class Config(BaseModel):
        """ViT-B/16 by default."""

        image: int = 224
        patch: int = 16
        width: int = 768
        depth: int = 12
        heads: int = 12
        images: int = 2048

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self._seed = seed

    def model(self) -> nn.Module:
        """The online network."""
        torch.manual_seed(self._seed)
        return Vit(**self.config.model_dump(exclude={"images"}))

    def train_data(self) -> TensorDataset:
        """Noise of shape (images, 3, image, image)."""
        shape = (self.config.images, 3, self.config.image, self.config.image)
        return TensorDataset(torch.randn(shape, generator=torch.Generator().manual_seed(self._seed)))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """See `byol_loss`; the target is the EMA."""
        assert step.ema is not None, "BYOL's target is the EMA"
        return byol_loss(model, step.ema, two_views(batch[0]))

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002
        """Nothing to tell."""
        return {}
