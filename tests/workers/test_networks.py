"""Encoders and image sets that recipes share."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from workers.recipes import images, networks


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("name", get_args(networks.Name))
def test_an_encoder_gives_as_many_features_as_it_says_and_every_weight_learns(name: networks.Name, side: int) -> None:
    encoder = networks.encoder(name, channels=1, side=side, hidden=16, depth=2)
    features = encoder(torch.randn(4, 1, side, side))
    assert features.shape == (4, encoder.features)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_images_of_another_size_are_taken(name: networks.Name) -> None:
    encoder = networks.encoder(name, channels=1, side=28, hidden=16, depth=1)
    assert encoder(torch.randn(4, 1, 16, 16)).shape == (4, encoder.features)


def test_a_width_that_a_vit_cannot_have_is_named() -> None:
    with pytest.raises(ValueError, match="hidden: a vit of 3 heads cannot be 50 wide; take a multiple of 16"):
        networks.encoder("vit", channels=1, side=8, hidden=50, depth=1)


def test_weights_depend_on_the_seed_alone_and_disturb_nobody() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        with networks.initialized(5):
            made.append(networks.encoder("vit", channels=1, side=8, hidden=16, depth=1).state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])
    torch.manual_seed(7)
    with networks.initialized(5):
        torch.rand(1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "side", "sizes"), [("digits", 8, (1437, 360)), ("fashion_mnist", 28, (60_000, 10_000))]
)
def test_a_set_is_whole_and_can_be_cut(name: images.Name, side: int, sizes: tuple[int, int]) -> None:
    whole, cut = images.load(name), images.load(name, 200)
    assert (len(whole.train[0]), len(whole.test[0])) == sizes
    assert torch.equal(cut.train[0], whole.train[0][:200])
    assert len(cut.test[1]) == sizes[1]
    assert (whole.channels, whole.side) == (1, side)
    assert 0 <= float(whole.train[0].min()) < float(whole.train[0].max()) <= 1
    assert whole.train[1].unique().tolist() == list(range(images.CLASSES))


def test_a_missing_set_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "FASHION_MNIST", tmp_path)
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        images.load("fashion_mnist")
