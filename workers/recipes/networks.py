"""Networks that turn images into features, in sizes that train on a laptop. All weights come from torch's generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Name = Literal["mlp", "cnn", "resnet", "vit"]


class Encoder(nn.Module):
    """Images of shape (n, channels, side, side) in, features of shape (n, `features`) out."""

    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        features: Tensor = self.body(images)
        return features


def encoder(name: Name, *, channels: int, side: int, hidden: int, depth: int) -> Encoder:
    """A new one, of `depth` layers (mlp, cnn), blocks (vit) or blocks a stage (resnet), `hidden` wide.

    cnn and resnet have BatchNorm, the others none. resnet and vit take images of other sizes too. Raises ValueError
    where the heads of a vit, one for each 16 features, do not divide its width.
    """
    body, features = ENCODERS[name](channels, side, hidden, depth)
    return Encoder(body, features)


@contextmanager
def initialized(seed: int) -> Iterator[None]:
    """A context in which new weights depend on the seed alone, and torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield


def _mlp(channels: int, side: int, hidden: int, depth: int) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise([channels * side * side, *[hidden] * depth]):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers), hidden


def _cnn(channels: int, side: int, hidden: int, depth: int) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for channels_in, channels_out in pairwise([channels, *[hidden] * depth]):
        layers += [_convolution(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten()), hidden * (side // 2) ** 2


def _convolution(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)


# -- ResNet ------------------------------------------------------------------------------------------------------------


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = (
            _convolution(channels_in, channels_out, stride=stride),
            nn.BatchNorm2d(channels_out),
        )
        self.second, self.second_norm = _convolution(channels_out, channels_out), nn.BatchNorm2d(channels_out)
        around: list[nn.Module] = []
        if stride > 1 or channels_in != channels_out:
            around = [nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)]
        self.around = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        """Half as high and wide where it strides."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.around(x))


def _resnet(channels: int, side: int, hidden: int, depth: int) -> tuple[nn.Module, int]:  # noqa: ARG001
    """Three stages, each twice as wide as the one before: He et al. 2016, arXiv 1512.03385, section 4.2."""
    layers: list[nn.Module] = [_convolution(channels, hidden), nn.BatchNorm2d(hidden), nn.ReLU()]
    width = hidden
    for stage in range(3):
        for number in range(depth):
            wider = hidden * 2**stage
            layers.append(_Block(width, wider, stride=2 if stage and not number else 1))
            width = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), width


# -- Vision transformer ------------------------------------------------------------------------------------------------


def patch_side(side: int) -> int:
    """Pixels of a vit's patch, for images of so many."""
    return max(2, side // 7)


class _VisionTransformer(nn.Module):
    """Patches, a learned position for each, transformer blocks with the norm first, and the mean over patches.

    Dosovitskiy et al. 2020, arXiv 2010.11929. Positions of an image of another size are interpolated.
    """

    def __init__(self, channels: int, side: int, hidden: int, depth: int) -> None:
        super().__init__()
        patch = patch_side(side)
        heads = max(1, hidden // 16)
        if hidden % heads:
            raise ValueError(f"hidden: a vit of {heads} heads cannot be {hidden} wide; take a multiple of 16")
        self.patches = nn.Conv2d(channels, hidden, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, hidden, side // patch, side // patch))
        block = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        for layer in self.blocks.layers:  # the encoder begins with copies of one
            for parameter in layer.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, images: Tensor) -> Tensor:
        """The mean over the patches' features, normalized."""
        patches = self.patches(images)
        positions: Tensor = self.positions
        if patches.shape[2:] != positions.shape[2:]:
            positions = functional.interpolate(positions, patches.shape[2:], mode="bilinear", align_corners=False)
        tokens = (patches + positions).flatten(2).transpose(1, 2)
        features: Tensor = self.norm(self.blocks(tokens)).mean(dim=1)
        return features


def _vit(channels: int, side: int, hidden: int, depth: int) -> tuple[nn.Module, int]:
    return _VisionTransformer(channels, side, hidden, depth), hidden


ENCODERS: dict[Name, Callable[[int, int, int, int], tuple[nn.Module, int]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "vit": _vit,
}
