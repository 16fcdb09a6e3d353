"""The recipe protocol, its catalogue, and `classify`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from api_schemas.errors import InvalidRequest, UnknownRecipe
from api_schemas.views import RecipeInfo
from tests.workers import tones
from tests.workers.school import teacher
from workers.data import SampleOrder, fetch
from workers.recipes import RECIPES, StepContext, augmentation, catalogue, load
from workers.recipes.classify import Classify

STEP = StepContext(ema=None, samples=0, epoch=0.0, kappa=1.0)


def sung(folder: Path) -> dict[str, Any]:
    tones.sing(folder)
    return {"folder": folder, "labelled": 6}


NEEDED: dict[str, Callable[[Path], dict[str, Any]]] = {"pseudo_label_speech": sung}
"""Settings without a default, made in an empty folder."""


def classify(**config: Any) -> Classify:
    return Classify(Classify.Config(**config), seed=0)


class Own:
    """A user's own recipe."""

    class Config(BaseModel):
        pass

    def __init__(self, config: Config, seed: int) -> None: ...
    def model(self) -> None: ...
    def train_data(self) -> None: ...
    def loss(self) -> None: ...
    def evaluate(self) -> None: ...


class NotQuite:
    Config: ClassVar[int] = 3

    def model(self) -> None: ...
    def train_data(self) -> None: ...


not_a_class = Own(Own.Config(), 0)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_of_the_catalogue_keeps_the_protocol(name: str, tmp_path: Path) -> None:
    kind = load(name)
    recipe = kind(kind.Config(**NEEDED.get(name, lambda _: {})(tmp_path)), 3)
    one, two = recipe.model().state_dict(), recipe.model().state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    data: Any = recipe.train_data()
    order = SampleOrder(len(data), 3)
    batch = fetch(data, augmentation(recipe), *order.keys(0, 8), 3)
    model = recipe.model().train()
    if getattr(kind, "needs_ema", False):
        with pytest.raises(ValueError, match="give the job one"):
            recipe.loss(model, batch, STEP)
    else:
        assert recipe.loss(model, batch, STEP).isfinite()
    loss = recipe.loss(model, batch, replace(STEP, ema=teacher(model)))
    loss.backward()
    assert loss.dim() == 0
    assert loss.isfinite()
    scores = recipe.evaluate(model)
    assert scores.keys() & {"loss", "accuracy"}
    assert all(isinstance(value, float) for value in scores.values())
    assert model.training


def test_catalogue_is_what_the_api_shows() -> None:
    rows = [RecipeInfo(**row) for row in catalogue()]
    assert [row.name for row in rows] == sorted(RECIPES)
    for row in rows:
        assert row.summary.endswith(".")
        assert row.config_schema["type"] == "object"
    assert {row.name for row in rows if row.needs_ema} == {"byol", "dino", "pseudo_label", "pseudo_label_speech"}


def test_neither_the_catalogue_nor_the_digits_load_a_data_library() -> None:
    code = """if True:
        import sys
        from workers.recipes import catalogue, classify
        catalogue()
        classify.Classify(classify.Classify.Config(), 0).train_data()
        print('sklearn' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_users_own_class_is_loaded_by_its_path() -> None:
    found: Any = load(f"{__name__}:Own")
    assert found is Own


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("clasify", UnknownRecipe, "classify"),
        ("no_such_module_here:Recipe", UnknownRecipe, "no_such_module_here"),
        (f"{__name__}:Missing", UnknownRecipe, "has no 'Missing'"),
        (f"{__name__}:NotQuite", InvalidRequest, r"Config \(a pydantic BaseModel\), loss, evaluate"),
        (f"{__name__}:not_a_class", InvalidRequest, "to be a class"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_reason(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load(name)


def test_a_module_that_fails_on_import_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_recipe.py").write_text("raise ValueError('no licence file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidRequest, match="ValueError: no licence file") as caught:
        load("broken_recipe:Recipe")
    assert caught.value.reason == "recipe_invalid"


def test_digits_are_split_once_for_all_seeds() -> None:
    data = classify().train_data()
    images, labels = data.tensors
    assert images.shape == (1437, 1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (0.0, 1.0)
    assert labels.bincount().min() > 135
    assert torch.equal(Classify(Classify.Config(), seed=9).train_data().tensors[0], images)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_models_are_seeded_without_touching_global_randomness(model: Any) -> None:
    state = torch.get_rng_state()
    one, two = classify(model=model).model(), Classify(Classify.Config(model=model), seed=1).model()
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    has_norm = any(isinstance(module, nn.BatchNorm2d) for module in one.modules())
    assert has_norm == (model == "cnn")


def test_double_precision_models_get_double_precision_images() -> None:
    recipe = classify()
    model = recipe.model().double()
    assert recipe.loss(model, recipe.train_data()[:4], STEP).dtype == torch.float64
    assert recipe.evaluate(model)["loss"] > 0


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_learns(model: Any) -> None:
    recipe = classify(model=model, hidden=32, augment=1 if model == "cnn" else 0, label_smoothing=0.05)
    net, data = recipe.model().train(), recipe.train_data()
    order, optimizer = SampleOrder(len(data), 0), torch.optim.Adam(net.parameters(), lr=0.01)
    for start in range(0, 3 * len(data), 64):
        optimizer.zero_grad()
        batch = fetch(data, recipe.augment, *order.keys(start, start + 64), 0)
        recipe.loss(net, batch, STEP).backward()
        optimizer.step()
    assert recipe.evaluate(net)["accuracy"] > 0.85


def test_shift_moves_an_image_by_at_most_the_reach_and_fills_with_background() -> None:
    recipe = classify(augment=2)
    image = torch.zeros(1, 8, 8)
    image[0, 4, 4] = 1.0
    shift = augmentation(recipe)
    places = set()
    for seed in range(300):
        moved, _ = shift((image, torch.tensor(3)), torch.Generator().manual_seed(seed))
        assert moved.shape == image.shape
        assert moved.sum() == 1
        places.add(tuple(moved[0].nonzero()[0].tolist()))
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}
    assert augmentation(classify()) is None


def test_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        Classify.Config(widths=[3])  # type: ignore[call-arg]
