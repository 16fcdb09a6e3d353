"""What `byol` and `dino` share: settings of the encoder, of the views that it learns from, and of the probes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from workers.recipes import images, networks
from workers.recipes.views import MIRRORED, Area, Views


class Settings(BaseModel):
    """Of a student of images without labels, and of how its features are evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: images.Name = Field("digits", description="digits: 8 by 8 pixels; fashion_mnist: 28 by 28.")
    train_size: int | None = Field(None, ge=100, description="Train on so many images; null: on all.")
    model: networks.Name = Field("mlp", description="Encoder: cnn and resnet have BatchNorm, mlp and vit none.")
    hidden: int = Field(
        256,
        ge=1,
        le=4096,
        description="Encoder's width: of each layer, or of the first channels; vit: a multiple of 16.",
    )
    depth: int = Field(2, ge=1, le=16, description="Layers (mlp, cnn), blocks (vit), blocks a stage (resnet).")
    turn: float = Field(15, ge=0, le=180, description="Turn each view by up to so many degrees.")
    light: float = Field(0.4, ge=0, le=1, description="Change contrast by up to this share, brightness by half.")
    noise: float = Field(0.05, ge=0, le=1, description="Standard deviation of noise on pixels in [0, 1].")
    neighbours: int = Field(20, ge=1, le=1000, description="Of the kNN evaluation.")
    probed: int = Field(2000, ge=100, le=10_000, description="Images that evaluations train on, and test on.")

    def views(self, side: int, area: Area) -> Views:
        """Views of so many pixels a side, and of such an area."""
        mirror = self.dataset in MIRRORED
        return Views(side=side, area=area, turn=self.turn, light=self.light, noise=self.noise, mirror=mirror)
