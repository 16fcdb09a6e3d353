"""The recipe `byol`."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.workers.school import first_batch, spread, step, teacher, train
from workers.recipes import networks
from workers.recipes.byol import Byol


def byol(seed: int = 0, **config: Any) -> Byol:
    return Byol(Byol.Config(**config), seed)


def small(**config: Any) -> Byol:
    return byol(**({"hidden": 16, "depth": 1, "head_hidden": 16, "projection": 8} | config))


@pytest.mark.usefixtures("one_thread")  # how sums are split among threads moves the scores by a percent
def test_features_learn_to_tell_digits_apart_and_do_not_collapse() -> None:
    recipe = byol(hidden=64)
    before = recipe.evaluate(recipe.model())
    model, losses = train(recipe, epochs=5)
    after = recipe.evaluate(model)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert all(after[name] > score + 0.03 for name, score in before.items())
    assert spread(model.eval()(recipe.train_data().tensors[0]).features) > 0.3


class Opposite(nn.Module):
    def forward(self, projected: Tensor) -> Tensor:
        return -projected


@pytest.mark.parametrize(("predictor", "expected"), [(nn.Identity(), 0.0), (Opposite(), 8.0)])
def test_the_loss_compares_directions_of_prediction_and_teacher(predictor: nn.Module, expected: float) -> None:
    recipe, same = small(), first_batch(small())[:, :1].expand(-1, 2, -1, -1, -1)
    student: Any = recipe.model().train()
    student.predictor = predictor
    assert recipe.loss(student, same, step(teacher(student))).item() == pytest.approx(expected, abs=1e-5)


def test_each_view_is_predicted_from_the_other() -> None:
    """Image i's second view is image i + 1: then the loss is that of the pairs, both ways."""
    recipe, batch = small(), first_batch(small())
    student: Any = recipe.model().train()
    student.predictor = nn.Identity()
    flipped = recipe.loss(student, batch.flip(1), step(teacher(student)))
    torch.testing.assert_close(recipe.loss(student, batch, step(teacher(student))), flipped)
    projected = nn.functional.normalize(teacher(student).train()(batch.flatten(0, 1)).projected, dim=1).view(-1, 2, 8)
    cosines = (projected[:, 0] * projected[:, 1]).sum(dim=1)
    torch.testing.assert_close(flipped, 2 * (2 - 2 * cosines).mean())


def test_gradients_reach_every_weight_of_the_student_and_none_of_the_teacher() -> None:
    recipe = small(model="cnn")
    student = recipe.model().train()
    shadow = teacher(student).requires_grad_(True)
    recipe.loss(student, first_batch(recipe), step(shadow)).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in shadow.parameters())


def test_the_teacher_normalizes_by_the_batch_and_comes_back_as_it_was() -> None:
    recipe = small(model="cnn")
    student = recipe.model().train()
    shadow, spoiled = teacher(student), teacher(student)
    for module in spoiled.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.add_(3.0)  # type: ignore[union-attr]
    before, batch = copy.deepcopy(spoiled.state_dict()), first_batch(recipe)
    losses = [recipe.loss(student, batch, step(one)) for one in (shadow, spoiled)]
    torch.testing.assert_close(*losses)
    assert not any(module.training for module in spoiled.modules())
    assert all(torch.equal(before[name], value) for name, value in spoiled.state_dict().items())


def test_a_job_without_an_ema_is_refused() -> None:
    recipe = small()
    with pytest.raises(ValueError, match="ema"):
        recipe.loss(recipe.model(), first_batch(recipe), step(None))


def test_a_slice_may_hold_a_single_image() -> None:
    recipe = small(model="resnet")
    student = recipe.model().train()
    assert recipe.loss(student, first_batch(recipe, 1), step(teacher(student))).isfinite()


def test_views_differ_and_repeat_with_the_generator() -> None:
    recipe = small()
    sample = recipe.train_data()[0]
    views, again = (recipe.augment(sample, torch.Generator().manual_seed(3)) for _ in range(2))
    assert views.shape == (2, 1, 8, 8)
    assert torch.equal(views, again)
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views, recipe.augment(sample, torch.Generator().manual_seed(4)))


def test_training_repeats_bit_for_bit() -> None:
    one, two = (train(small(), epochs=0.2)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = small().model().state_dict()
    torch.manual_seed(2)
    same, other = small().model().state_dict(), small(seed=1).model().state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["predictor.0.weight"], other["predictor.0.weight"])


@pytest.mark.parametrize("model", get_args(networks.Name))
def test_every_encoder_takes_part_and_is_evaluated_on_clothes(model: networks.Name) -> None:
    recipe = small(model=model, dataset="fashion_mnist", train_size=200, probed=100)
    student = recipe.model().train()
    assert recipe.loss(student, first_batch(recipe, 4), step(teacher(student))).isfinite()
    assert recipe.evaluate(student).keys() == {"accuracy", "linear_accuracy"}
    assert student.training


def test_double_precision_is_kept() -> None:
    recipe = small()
    student = recipe.model().double()
    assert recipe.loss(student, first_batch(recipe), step(teacher(student))).dtype == torch.float64
    assert recipe.evaluate(student)["accuracy"] > 0


def test_config_refuses_what_it_does_not_know_and_impossible_crops() -> None:
    for wrong in ({"views": 2}, {"area": (0.9, 0.2)}, {"train_size": 3}):
        with pytest.raises(ValidationError):
            Byol.Config(**wrong)
