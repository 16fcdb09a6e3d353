"""Random views of an image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from workers.recipes.views import Area, Views

PLAIN = Views(side=8, area=(1.0, 1.0), turn=0.0, light=0.0, noise=0.0, mirror=False)
IMAGE = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))


def seen(views: Views, count: int = 64, *, seed: int = 0, image: Tensor = IMAGE) -> Tensor:
    return views.of(image, count, torch.Generator().manual_seed(seed))


def test_a_view_that_changes_nothing_is_the_image() -> None:
    torch.testing.assert_close(seen(PLAIN, 3), IMAGE.expand(3, 1, 8, 8))


def test_all_randomness_comes_from_the_generator() -> None:
    views = replace(PLAIN, area=(0.3, 0.9), turn=20.0, light=0.4, noise=0.1, mirror=True)
    torch.manual_seed(1)
    one = seen(views)
    torch.manual_seed(2)
    assert torch.equal(one, seen(views))
    assert not torch.equal(one, seen(views, seed=1))
    assert len(torch.unique(one.flatten(1), dim=0)) == len(one)
    assert one.min() >= 0
    assert one.max() <= 1


def test_views_have_their_own_size_and_the_images_channels() -> None:
    assert seen(replace(PLAIN, side=5), 3, image=torch.rand(2, 8, 8)).shape == (3, 2, 5, 5)


def test_a_crop_lies_inside_the_image_and_is_as_large_as_asked() -> None:
    """On a ramp from left to right, inner pixels tell where a crop begins and ends; at its rim lies background."""
    ramp = (torch.arange(64) + 0.5).div(64).expand(1, 64, 64)
    crops = seen(replace(PLAIN, side=64, area=(0.25, 0.64)), 300, image=ramp)[:, 0, 32]
    width = (crops[:, 47] - crops[:, 16]) * 64 / 31
    middle = (crops[:, 47] + crops[:, 16]) / 2
    assert 0.499 < width.min() < 0.52
    assert 0.78 < width.max() < 0.801
    assert (middle - width / 2).min() > -1e-4
    assert (middle + width / 2).max() < 1 + 1e-4
    assert middle.min() < 0.35
    assert middle.max() > 0.65


def test_half_of_the_views_are_mirrored_where_that_is_allowed() -> None:
    mirrored = (seen(replace(PLAIN, mirror=True), 200) - IMAGE.flip(2)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 70 < mirrored.sum() < 130


def test_light_changes_every_pixel_of_a_view_alike() -> None:
    grey = torch.full((1, 8, 8), 0.5)
    views = seen(replace(PLAIN, light=0.4), 200, image=grey)
    torch.testing.assert_close(views.amax(dim=(1, 2, 3)), views.amin(dim=(1, 2, 3)))
    assert 0.1 <= views.min() < 0.2
    assert 0.8 < views.max() <= 0.9 + 1e-6


@pytest.mark.parametrize("area", [(0.0, 0.5), (0.5, 1.1), (0.6, 0.5)])
def test_impossible_areas_are_refused(area: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Area).validate_python(area)
