"""Pseudo-labels and the mean teacher: what is labelled, who learns from whom, from when on, and that it helps."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from workers.batchnorm import BufferSnapshot
from workers.data import SampleOrder, fetch
from workers.ema import Ema
from workers.recipes import StepContext, images, semi_supervised
from workers.recipes.pseudo_label import PseudoLabel, strong, weak
from workers.recipes.semi_supervised import Classes, Pupil

NOW: dict[str, Any] = {"start_accuracy": None, "ramp": "0 samples"}
"""The unlabelled loss counts in full from the beginning."""


def pseudo_label(seed: int = 0, **config: Any) -> PseudoLabel:
    return PseudoLabel(PseudoLabel.Config(**config), seed)


def step(teacher: nn.Module | None, samples: int = 0) -> StepContext:
    return StepContext(ema=teacher, samples=samples, epoch=samples / 1437, kappa=1.0)


def batch(recipe: PseudoLabel, size: int = 16) -> Any:
    data = recipe.train_data()
    return fetch(data, recipe.augment, *SampleOrder(len(data), 0).keys(0, size), 0)


def pupil_and_teacher(recipe: PseudoLabel, model_seed: int = 1) -> tuple[Pupil, Pupil]:
    """The teacher has other weights."""
    teacher = PseudoLabel(recipe._config, model_seed).model().eval().requires_grad_(False)
    pupil = recipe.model().train()
    assert isinstance(pupil, Pupil)
    assert isinstance(teacher, Pupil)
    return pupil, teacher


def oracle() -> Pupil:
    """A teacher of the digits that knows them all."""
    shown, labels = images.load("digits").train

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(100.0))

        def forward(self, inputs: Tensor) -> Tensor:
            nearest = torch.cdist(inputs.flatten(1), shown.flatten(1)).argmin(dim=1)
            return nn.functional.one_hot(labels[nearest], 10) * self.scale

    return Pupil(Table())


# -- samples -----------------------------------------------------------------------------------------------------------


def test_a_few_of_each_class_keep_their_label_whatever_the_seed() -> None:
    shown, labels = images.load("digits").train
    kept = semi_supervised.balanced(labels, 3)
    assert labels[kept].bincount().tolist() == [3] * 10
    assert len(set(kept.tolist())) == 30
    data, other = pseudo_label(labelled=3).train_data(), pseudo_label(seed=7, labelled=3).train_data()
    assert len(data) == len(shown)
    for index in (0, 31, 1436):
        for one, two in zip(data[index], other[index], strict=True):
            assert torch.equal(one, two)
        assert torch.equal(data[index][0], shown[index])
    of_labels = {int((shown == data[index][1]).flatten(1).all(1).nonzero()[0]) for index in range(len(data))}
    assert of_labels == set(kept.tolist()), "no other label is ever seen"


def test_more_labels_than_there_are_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one class has only"):
        pseudo_label(labelled=200)


def test_views_come_from_the_generator_alone() -> None:
    image = images.load("digits").train[0][0]
    for view in (weak, strong):
        one, two, three = (view(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
        assert one.shape == image.shape
        assert 0 <= one.min() < one.max() <= 1


def test_every_batch_has_both_kinds_of_samples() -> None:
    recipe = pseudo_label()
    for size in (1, 7):
        weakly, strongly, labelled, labels = batch(recipe, size)
        assert len(weakly) == len(strongly) == len(labelled) == len(labels) == size


# -- loss --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pseudo_label", "mean_teacher"])
def test_a_batch_may_be_cut_anywhere(method: str) -> None:
    recipe = pseudo_label(method=method, threshold=0.1, **NOW)
    pupil, teacher = pupil_and_teacher(recipe)
    whole = batch(recipe, 12)
    parts = [[each[a:b] for each in whole] for a, b in [(0, 5), (5, 12)]]
    mean = sum(recipe.loss(pupil, part, step(teacher)).item() * len(part[0]) / 12 for part in parts)
    assert mean == pytest.approx(recipe.loss(pupil, whole, step(teacher)).item(), rel=1e-5)


@pytest.mark.parametrize("method", ["pseudo_label", "mean_teacher"])
def test_the_pupil_learns_and_the_teacher_does_not(method: str) -> None:
    recipe = pseudo_label(method=method, threshold=0.0, **NOW)
    pupil, teacher = pupil_and_teacher(recipe)
    teacher.requires_grad_(True)
    before = copy.deepcopy(teacher.state_dict())
    weakly, strongly, labelled, labels = batch(recipe)
    strongly.requires_grad_(True)
    weakly.requires_grad_(True)
    recipe.loss(pupil, (weakly, strongly, labelled, labels), step(teacher)).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in pupil.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert strongly.grad is not None
    assert weakly.grad is None
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items() if name != "begun")


def test_below_the_threshold_a_pseudo_label_counts_nothing() -> None:
    sure = Classes(method="pseudo_label", threshold=0.9)
    taught = torch.tensor([[4.0, 0.0], [1.0, 0.0], [0.0, 4.0]])  # 0.98, 0.73 and 0.98
    logits = torch.zeros(3, 2, requires_grad=True)
    loss = sure.unlabelled(logits, taught)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item())
    assert logits.grad[1].tolist() == [0, 0]
    assert logits.grad[0, 0] < 0
    assert logits.grad[2, 1] < 0
    assert Classes(method="pseudo_label", threshold=0.99).unlabelled(logits, taught).item() == 0


def test_the_mean_teacher_is_the_squared_distance_of_probabilities() -> None:
    near = Classes(method="mean_teacher", threshold=1.0)
    taught = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    assert near.unlabelled(taught, taught).item() == 0
    assert near.unlabelled(torch.zeros(2, 2), taught).item() == pytest.approx((0 + 0.5) / 2)


def test_without_an_ema_there_is_no_teacher() -> None:
    recipe = pseudo_label()
    with pytest.raises(ValueError, match="ema"):
        recipe.loss(recipe.model(), batch(recipe), step(None))


# -- start -------------------------------------------------------------------------------------------------------------


def unlabelled_share(recipe: PseudoLabel, pupil: Pupil, teacher: Pupil, samples: int) -> float:
    """What the unlabelled loss adds at a sample, as a share of what it adds in full."""
    whole = batch(recipe)
    with torch.no_grad():
        loss = recipe.loss(pupil, whole, step(teacher, samples)).item()
        alone = nn.functional.cross_entropy(pupil(whole[2]), whole[3]).item()
        full = Classes(method="mean_teacher", threshold=0).unlabelled(pupil(whole[1]), teacher(whole[0])).item()
    return (loss - alone) / full


def test_the_unlabelled_loss_begins_at_a_sample_and_grows() -> None:
    recipe = pseudo_label(method="mean_teacher", start="1 epochs", start_accuracy=None, ramp="100 samples")
    pupil, teacher = pupil_and_teacher(recipe)
    shares = {0: 0.0, 1436: 0.0, 1437: 0.0, 1462: 0.25, 1537: 1.0, 9999: 1.0}
    found = {samples: unlabelled_share(recipe, pupil, teacher, samples) for samples in shares}
    assert found == pytest.approx(shares, abs=1e-3)


def test_it_begins_once_the_teacher_is_good_enough_and_does_not_end() -> None:
    recipe = pseudo_label(method="mean_teacher", start_accuracy=0.9, ramp="100 samples")
    pupil, ignorant = pupil_and_teacher(recipe)
    assert unlabelled_share(recipe, pupil, ignorant, 500) == 0
    assert pupil.begun < 0
    recipe.loss(pupil, batch(recipe), step(oracle(), 1000))
    assert pupil.begun == 1000
    ignorant.load_state_dict(ignorant.state_dict() | {"begun": pupil.begun})  # as the engine copies buffers
    assert unlabelled_share(recipe, pupil, ignorant, 1050) == pytest.approx(0.5, abs=1e-3)
    assert pupil.begun == 1000


def test_the_beginning_is_taken_back_with_the_step_and_survives_a_checkpoint() -> None:
    recipe = pseudo_label()
    pupil, _ = pupil_and_teacher(recipe)
    before = BufferSnapshot(pupil)
    recipe.loss(pupil, batch(recipe), step(oracle(), 64))
    saved = copy.deepcopy(pupil.state_dict())
    before.restore()
    assert pupil.begun < 0
    pupil.load_state_dict(saved)
    assert pupil.begun == 64


def test_workers_with_other_running_statistics_begin_at_the_same_sample() -> None:
    recipe = pseudo_label(model="cnn", hidden=4, start_accuracy=0.9)
    _, teacher = pupil_and_teacher(recipe)
    scores = set()
    for scale in (0.1, 1.0, 10.0):
        for name, buffer in teacher.named_buffers():
            if "running_var" in name:
                buffer.fill_(scale)
        scores.add(recipe._lessons._score(teacher))
    assert len(scores) == 1


def test_a_worker_without_samples_notes_the_beginning_too() -> None:
    recipe = pseudo_label()
    pupil, _ = pupil_and_teacher(recipe)
    recipe.loss(pupil.eval(), batch(recipe, 1), step(oracle(), 128))
    assert pupil.begun == 128


# -- training ----------------------------------------------------------------------------------------------------------


def trained(epochs: int, **config: Any) -> dict[str, float]:
    """Scores of the EMA."""
    recipe = pseudo_label(model="cnn", hidden=16, labelled=2, **config)
    model, data = recipe.model().train(), recipe.train_data()
    order, ema = SampleOrder(len(data), 0), Ema(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for start in range(0, epochs * len(data), 64):
        optimizer.zero_grad()
        shown = fetch(data, recipe.augment, *order.keys(start, start + 64), 0)
        recipe.loss(model, shown, step(ema.module, start)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema.after_step(model, 0.97, 1.0)
    return recipe.evaluate(ema.module)


@pytest.mark.usefixtures("one_thread")
def test_unlabelled_images_help() -> None:
    supervised, taught = trained(8, weight=0), trained(8)
    assert taught["accuracy"] > supervised["accuracy"] + 0.03


@pytest.mark.parametrize("config", [{"start": "5 base_steps"}, {"threshold": 1.1}, {"method": "noisy_student"}])
def test_config_refuses_what_it_does_not_know(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        pseudo_label(**config)


def test_the_schema_says_that_a_start_is_in_samples_or_epochs() -> None:
    pattern = PseudoLabel.Config.model_json_schema()["properties"]["start"]["pattern"]
    found = {unit: bool(re.search(pattern, f"5 {unit}")) for unit in ("samples", "epochs", "base_steps")}
    assert found == {"samples": True, "epochs": True, "base_steps": False}
