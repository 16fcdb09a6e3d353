"""Random views of an image: what methods without labels learn to see through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from workers.recipes import images

MIRRORED: frozenset[images.Name] = frozenset({"fashion_mnist"})
"""Sets whose images mean the same in a mirror: a shoe does, a digit does not."""


def _ordered(area: tuple[float, float]) -> tuple[float, float]:
    if area[0] > area[1]:
        raise ValueError(f"the least area ({area[0]:g}) must not exceed the largest ({area[1]:g})")
    return area


Share = Annotated[float, Field(gt=0, le=1)]
Area = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
"""Of crops, least and largest, as shares of the image's."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """A kind of view: a square crop of the image, turned a little, resized, in another light, with noise on it.

    Cropping and light: Chen et al. 2020, arXiv 2002.05709, without colours and blur. Turning and noise are added for
    small grey images, for which the crop alone changes little.
    """

    side: int  # of a view, in pixels
    area: Area
    turn: float  # degrees at most, either way
    light: float  # contrast changes by this share at most, brightness by half of it
    noise: float  # standard deviation, where pixels lie in [0, 1]
    mirror: bool  # flip half of the views left to right

    def of(self, image: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """So many views of an image of shape (channels, side, side), stacked; pixels in [0, 1]."""
        chance = torch.rand(7, count, generator=generator, dtype=image.dtype)
        grid = functional.affine_grid(
            self._placed(chance[:5]), [count, len(image), self.side, self.side], align_corners=False
        )
        seen = functional.grid_sample(image.expand(count, *image.shape), grid, align_corners=False)
        contrast, brightness = self.light * (2 * chance[5:, :, None, None, None] - 1)
        noise = torch.randn(seen.shape, generator=generator, dtype=image.dtype)
        lit: Tensor = seen * (1 + contrast) + brightness / 2 + self.noise * noise
        return lit.clamp_(0, 1)

    def _placed(self, chance: Tensor) -> Tensor:
        """Where a view's pixels lie in the image: affine maps of shape (count, 2, 3), from uniform numbers."""
        least, largest = self.area
        zoom = (least + (largest - least) * chance[0]).sqrt()
        right, down = (1 - zoom) * (2 * chance[1:3] - 1)
        angle = math.radians(self.turn) * (2 * chance[3] - 1)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        side = torch.where(chance[4] < 0.5, -1.0, 1.0) if self.mirror else torch.ones_like(zoom)
        return torch.stack([side * cos, -sin, right, side * sin, cos, down], dim=1).reshape(-1, 2, 3)
