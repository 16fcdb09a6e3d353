"""Training tasks. A recipe says what is trained, on what, and how well it does; the trainer does the rest.

A new recipe is one class: a file here and a line in RECIPES, or a class of the user's own package, asked for as
"package.module:Class". Its docstring's first line is the summary that the catalogue shows.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from api_schemas.errors import InvalidRequest, UnknownRecipe

RECIPES: dict[str, str] = {
    "byol": "workers.recipes.byol:Byol",
    "classify": "workers.recipes.classify:Classify",
    "dino": "workers.recipes.dino:Dino",
    "language": "workers.recipes.language:Language",
    "parabola": "workers.recipes.parabola:Parabola",
    "pseudo_label": "workers.recipes.pseudo_label:PseudoLabel",
    "pseudo_label_speech": "workers.recipes.pseudo_label_speech:PseudoLabelSpeech",
}
"""The catalogue: name -> "module:Class"."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Where in the run a loss is computed."""

    ema: nn.Module | None  # the shadow, in eval mode and without gradients; None where the job has no EMA
    samples: int  # seen before this step
    epoch: float  # samples over the size of the data set
    kappa: float  # batch over base batch
    base_steps: float = 1.0  # that this one forward pass stands for: an average that a recipe keeps has m ** base_steps

    @property
    def teacher(self) -> nn.Module:
        """The shadow, for recipes that learn from it. Raises ValueError where the job has none."""
        if self.ema is None:
            raise ValueError(
                "This recipe learns from a teacher, the EMA: give the job one, as `ema: {momentum: 0.99}`."
            )
        return self.ema


class Recipe(Protocol):
    """What the trainer asks of a task.

    Optional: `augment`, None or a method `(sample, generator) -> sample` that changes one training sample, all its
    randomness from the generator, which is keyed by sample; `needs_ema`, True where the loss asks for the teacher, so
    that a job without an EMA is refused when it is submitted.
    """

    Config: ClassVar[type[BaseModel]]
    """The recipe's settings. Its JSON schema is what the API shows and checks."""

    def __init__(self, config: Any, seed: int) -> None:
        """`config` is a valid `Config`; the same seed gives the same recipe on every worker."""

    def model(self) -> nn.Module:
        """A new model on the CPU, the same weights every time."""

    def train_data(self) -> Dataset[Any]:
        """The training set, map style: `len`, and by index; `torch.utils.data.default_collate` makes the batches."""

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        """Mean loss over a batch on the model's device. `model` may be wrapped: only call it."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Scores on held-out data, "loss" or "accuracy" among them; leaves the model in the mode that it was in."""


def load(name: str) -> type[Recipe]:
    """The class of a catalogue name, or of the user's own "package.module:Class".

    Raises UnknownRecipe where there is none, and InvalidRequest (`recipe_invalid`) where it is no recipe, or its module
    fails when it is imported.
    """
    path = RECIPES.get(name, name)
    module_name, _, class_name = path.partition(":")
    if not (module_name and class_name):
        catalogue_names = ", ".join(sorted(RECIPES))
        raise UnknownRecipe(f"There is no recipe {name!r}. Use {catalogue_names}, or your own `package.module:Class`.")
    found = getattr(_import(module_name, name), class_name, None)
    if found is None:
        raise UnknownRecipe(f"Module {module_name!r} has no {class_name!r}, which recipe {name!r} asks for.")
    _check(found, name)
    recipe: type[Recipe] = found
    return recipe


def augmentation(recipe: object) -> Any:
    """The recipe's `augment`, or None where it has none: what `workers.data.fetch` takes."""
    return getattr(recipe, "augment", None)


def catalogue() -> list[dict[str, Any]]:
    """Every recipe in RECIPES, by name: rows of GET /v1/recipes."""
    return [row(name) for name in sorted(RECIPES)]


def row(name: str) -> dict[str, Any]:
    """What one recipe is and asks for, as `RecipeInfo` has it. Raises as `load` does."""
    recipe = load(name)
    summary = (inspect.getdoc(recipe) or "").partition("\n")[0]
    return {
        "name": name,
        "summary": summary,
        "config_schema": recipe.Config.model_json_schema(),
        "needs_ema": bool(getattr(recipe, "needs_ema", False)),
    }


def _import(module_name: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownRecipe(f"Recipe {name!r} needs a module that is not on this node: {error.name}.") from error
    except Exception as error:
        detail = f"Recipe {name!r} cannot be imported: {type(error).__name__}: {error}"
        raise InvalidRequest(detail, code="recipe_invalid") from error


def _check(found: Any, name: str) -> None:
    config = getattr(found, "Config", None)
    lacks = [part for part in ("model", "train_data", "loss", "evaluate") if not callable(getattr(found, part, None))]
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        lacks.insert(0, "Config (a pydantic BaseModel)")
    if lacks or not isinstance(found, type):
        missing = ", ".join(lacks) or "to be a class"
        raise InvalidRequest(f"Recipe {name!r} is no recipe; it lacks: {missing}.", code="recipe_invalid")
