"""What features tell of labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workers.recipes import images, probes

CLASSES = images.CLASSES


def clusters(count: int, dimensions: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features around one direction a class, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return torch.eye(dimensions)[labels] + 0.05 * torch.randn(count, dimensions, generator=generator), labels


def scores(model: nn.Module, encode: Callable[[Tensor], Tensor], limit: int = 500) -> dict[str, float]:
    return probes.scores(model, encode, images.load("digits"), neighbours=5, limit=limit)


@pytest.mark.parametrize("dimensions", [12, 150], ids=["fewer features than images", "more features than images"])
def test_both_probes_find_what_is_there(dimensions: int) -> None:
    (train, labels), (test, expected) = clusters(120, dimensions, 0), clusters(60, dimensions, 1)
    assert torch.equal(probes.nearest(train, labels, test, 5), expected)
    assert torch.equal(probes.linear(train, labels, test), expected)


def test_both_ways_to_solve_the_ridge_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(30, width, generator=generator, dtype=torch.float64) for width in (40, 3))
    primal = torch.linalg.solve(inputs.T @ inputs + 0.5 * torch.eye(40, dtype=torch.float64), inputs.T @ targets)
    torch.testing.assert_close(probes._ridge(inputs, targets, 0.5), primal)


def test_the_length_of_features_does_not_count_among_neighbours() -> None:
    train, labels, test = torch.tensor([[9.0, 0.0], [0.0, 1.0]]), torch.tensor([3, 4]), torch.tensor([[1.0, 2.0]])
    assert probes.nearest(train, labels, test, 1).tolist() == [4]


def test_a_near_neighbour_outvotes_two_that_are_far_and_more_than_there_are_are_not_asked() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert probes.nearest(train, torch.tensor([3, 4, 4]), torch.tensor([[1.0, 0.5]]), 20).tolist() == [3]


def test_pixels_are_scored_the_same_every_time() -> None:
    model = nn.Flatten()
    one = scores(model, model, 2000)
    assert one == scores(model, model, 2000)
    assert one["accuracy"] > 0.95
    assert 0.85 < one["linear_accuracy"] < one["accuracy"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_encodes_in_eval_mode_and_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).train(training)
    modes = []

    def encode(shown: Tensor) -> Tensor:
        modes.append(model[1].training)
        encoded: Tensor = model(shown)
        return encoded

    scores(model, encode)
    assert modes
    assert not any(modes)
    assert model.training == training
    assert model[1].training == training


def test_features_that_say_nothing_score_by_chance_and_broken_ones_nothing() -> None:
    model = nn.Flatten()
    flat = scores(model, lambda shown: torch.ones(len(shown), 4))
    assert max(flat.values()) < 0.25
    assert all(math.isnan(score) for score in scores(model, lambda shown: model(shown) / 0).values())
