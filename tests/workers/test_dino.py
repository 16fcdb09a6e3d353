"""The recipe `dino`."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.workers.school import first_batch, spread, step, teacher, train
from workers.batchnorm import BufferSnapshot
from workers.ema import Ema
from workers.recipes import networks
from workers.recipes.dino import Dino, cross_entropy


def dino(seed: int = 0, **config: Any) -> Dino:
    return Dino(Dino.Config(**config), seed)


def small(**config: Any) -> Dino:
    sizes = {"hidden": 16, "depth": 1, "head_hidden": 16, "bottleneck": 8, "prototypes": 12}
    return dino(**(sizes | config))


def entropy(chances: Tensor) -> float:
    return float(-torch.xlogy(chances, chances).sum(dim=-1).mean())


@pytest.mark.usefixtures("one_thread")  # how sums are split among threads moves the scores by a percent
def test_features_learn_to_tell_digits_apart_and_do_not_collapse() -> None:
    recipe = dino(hidden=64, local_crops=2)
    before = recipe.evaluate(recipe.model())
    model, losses = train(recipe, epochs=4)
    after = recipe.evaluate(model)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    assert all(after[name] > score + 0.02 for name, score in before.items())
    seen = model.eval()([recipe.train_data().tensors[0].unsqueeze(1)])
    assert spread(seen.features) > 0.3
    chances = ((seen.logits[:, 0].detach() - seen.centre) / recipe.teacher_temperature(4)).softmax(dim=1)
    # What a prototype tells of its image: nothing, where all images have the same, or each has a little of all.
    assert entropy(chances.mean(dim=0)) - entropy(chances) > 1


# -- the centre --------------------------------------------------------------------------------------------------------


def centre_after(recipe: Dino, *base_steps: float) -> Tensor:
    """From one, after training forward passes on the same batch that stand for so many base steps each."""
    model: Any = recipe.model().double().train()
    model.centre.fill_(1.0)
    for steps in base_steps:
        recipe.loss(model, first_batch(recipe), step(teacher(recipe.model().double()), base_steps=steps))
    centre: Tensor = model.centre
    return centre


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.9999, 1.0])
def test_the_centre_follows_the_batch(momentum: float) -> None:
    recipe = small(centre_momentum=momentum)
    torch.testing.assert_close(centre_after(recipe, 1, 1), centre_after(recipe, 2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(centre_after(recipe, 0.5, 0.25, 0.25), centre_after(recipe, 1), rtol=1e-12, atol=1e-12)


def test_the_centre_is_an_average_of_the_teachers_logits() -> None:
    recipe = small(centre_momentum=0.9)
    shadow: Any = teacher(recipe.model().double())
    for module in shadow.modules():
        module.training = isinstance(module, nn.BatchNorm1d)
    mean = shadow([first_batch(recipe)[0].double()]).logits.mean(dim=(0, 1))
    torch.testing.assert_close(centre_after(recipe, 1), 0.9 + 0.1 * mean)


def test_nothing_is_lost_where_the_momentum_is_near_1() -> None:
    recipe = small(centre_momentum=1 - 1e-12)
    once, often = (1 - centre_after(recipe, steps) for steps in (1, 1000))
    torch.testing.assert_close(often, 1000 * once, rtol=1e-3, atol=0)


def test_the_loss_is_centred_by_what_was_before_it() -> None:
    recipe, losses = small(), []
    for base_steps in (1, 50):
        model: Any = recipe.model().train()
        model.centre.copy_(torch.linspace(-1, 1, 12))
        losses.append(recipe.loss(model, first_batch(recipe), step(teacher(model), base_steps=base_steps)).item())
    assert losses[0] == losses[1]
    plain = recipe.loss(recipe.model().train(), first_batch(recipe), step(teacher(recipe.model()))).item()
    assert abs(losses[0] - plain) > 0.01


def test_the_centre_moves_in_training_alone_and_only_the_students() -> None:
    recipe = small()
    model: Any = recipe.model().eval()
    shadow: Any = teacher(model)
    recipe.loss(model, first_batch(recipe), step(shadow))
    recipe.evaluate(model.train())
    assert not model.centre.any()
    recipe.loss(model, first_batch(recipe), step(shadow))
    assert model.centre.all()
    assert not shadow.centre.any()


def test_a_step_that_is_not_confirmed_leaves_the_centre_and_the_ema_takes_it_over() -> None:
    recipe = small()
    model: Any = recipe.model().train()
    ema, before = Ema(model), BufferSnapshot(model)
    recipe.loss(model, first_batch(recipe), step(ema.module))
    moved = model.centre.clone()
    before.restore()
    assert not model.centre.any()
    recipe.loss(model, first_batch(recipe), step(ema.module))
    ema.after_step(model, 0.9, 1.0)
    assert torch.equal(model.centre, moved)
    assert torch.equal(ema.module.get_buffer("centre"), moved)


# -- student and teacher -----------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_pairs_of_different_crops() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(3, 2, 5, generator=generator).softmax(dim=2)
    guesses = torch.randn(3, 6, 5, generator=generator).log_softmax(dim=2)
    pairs = [(g, v) for g in range(2) for v in range(6) if g != v]
    expected = sum(-(targets[:, g] * guesses[:, v]).sum(dim=1).mean() for g, v in pairs) / len(pairs)
    torch.testing.assert_close(cross_entropy(targets, guesses), expected)


@pytest.mark.parametrize(("epoch", "learns"), [(0.0, False), (0.99, False), (1.0, True)])
def test_gradients_reach_every_weight_of_the_student_and_none_of_the_teacher(epoch: float, learns: bool) -> None:
    recipe = small(model="cnn", freeze_last_layer=1)
    student: Any = recipe.model().train()
    shadow = teacher(student).requires_grad_(True)
    recipe.loss(student, first_batch(recipe), step(shadow, epoch=epoch)).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in shadow.parameters())
    assert bool(student.directions.grad.any()) == learns
    assert student.head[0].weight.grad.any()


def test_the_teachers_temperature_rises_with_epochs() -> None:
    recipe = dino(teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_warmup=10)
    found = [recipe.teacher_temperature(epoch) for epoch in (0, 5, 10, 99.5)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert dino(teacher_warmup=0).teacher_temperature(0) == 0.05


def test_a_sharper_teacher_changes_the_loss() -> None:
    recipe = small()
    model = recipe.model().train()
    early, late = (recipe.loss(model, first_batch(recipe), step(teacher(model), epoch=e)).item() for e in (0, 10))
    assert early != late


def test_a_job_without_an_ema_is_refused() -> None:
    recipe = small()
    with pytest.raises(ValueError, match="ema"):
        recipe.loss(recipe.model(), first_batch(recipe), step(None))


def test_training_repeats_bit_for_bit() -> None:
    one, two = (train(small(), epochs=0.2)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = small().model().state_dict()
    torch.manual_seed(2)
    same, other = small().model().state_dict(), small(seed=1).model().state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["directions"], other["directions"])


# -- crops -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dataset", "side", "local"),
    [
        ("mlp", "digits", 8, 8),
        ("vit", "digits", 8, 6),
        ("cnn", "fashion_mnist", 28, 28),
        ("resnet", "fashion_mnist", 28, 16),
    ],
)
def test_local_crops_are_smaller_where_the_encoder_takes_that(model: str, dataset: str, side: int, local: int) -> None:
    recipe = small(model=model, dataset=dataset, local_crops=3, train_size=200)
    large, small_ones = recipe.augment(recipe.train_data()[0], torch.Generator().manual_seed(0))
    assert large.shape == (2, 1, side, side)
    assert small_ones.shape == (3, 1, local, local)


def test_crops_differ_and_repeat_with_the_generator() -> None:
    recipe = small()
    sample = recipe.train_data()[0]
    crops, again, others = (recipe.augment(sample, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(crops, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(crops, others, strict=True))
    assert len(torch.unique(crops[1].flatten(1), dim=0)) == 4


@pytest.mark.parametrize("local_crops", [0, 1, 3])
@pytest.mark.parametrize("model", get_args(networks.Name))
def test_every_encoder_takes_part_with_any_number_of_crops_and_images(model: networks.Name, local_crops: int) -> None:
    recipe = small(model=model, local_crops=local_crops, probed=100)
    student = recipe.model().train()
    for count in (1, 4):
        assert recipe.loss(student, first_batch(recipe, count), step(teacher(student))).isfinite()
    assert recipe.evaluate(student).keys() == {"accuracy", "linear_accuracy"}
    assert student.training


def test_double_precision_is_kept() -> None:
    recipe = small()
    student = recipe.model().double()
    assert recipe.loss(student, first_batch(recipe), step(teacher(student))).dtype == torch.float64
    assert recipe.evaluate(student)["accuracy"] > 0


def test_config_refuses_what_it_does_not_know_and_impossible_crops() -> None:
    for wrong in ({"views": 2}, {"local_area": (0.9, 0.2)}, {"student_temperature": 0}):
        with pytest.raises(ValidationError):
            Dino.Config(**wrong)
