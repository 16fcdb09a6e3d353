"""Whether a spec may become a job: the recipe exists, its config fits, and some size can be trained."""

from __future__ import annotations

from collections.abc import Iterator

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from sqlmodel import Session, col, select

from api_schemas.errors import FieldError, UnknownRecipe
from api_schemas.jobs import RecipeSpec
from service.tables import RecipeRow
from service.validation import MAX_ERRORS, invalid, pointer

MESSAGE_LENGTH = 300


def check_recipe(session: Session, recipe: RecipeSpec) -> None:
    """A catalogue recipe must exist and accept its config. Raises UnknownRecipe, InvalidRequest.

    `package.module:Class` is on the nodes, where the service cannot look; so is everything while the catalogue is
    empty, because the cluster never answered yet. The workers check those.
    """
    if ":" in recipe.name:
        return
    row = session.get(RecipeRow, recipe.name)
    if row is None:
        _check_catalogue(session, recipe.name)
        return
    validator = Draft202012Validator(row.config_schema, registry=Registry())
    errors = list(_config_errors(validator, recipe))
    if errors:
        raise invalid(errors)


def _check_catalogue(session: Session, name: str) -> None:
    names = session.exec(select(RecipeRow.name).order_by(col(RecipeRow.name))).all()
    if names:
        message = f"There is no recipe {name!r}; there are: {', '.join(names)}; or name one as package.module:Class."
        raise UnknownRecipe(message, errors=[FieldError(pointer="/recipe/name", message=message)])


def _config_errors(validator: Draft202012Validator, recipe: RecipeSpec) -> Iterator[FieldError]:
    found: list[ValidationError] = sorted(validator.iter_errors(recipe.config), key=lambda error: str(error.json_path))
    for error in found[:MAX_ERRORS]:
        message = error.message if len(error.message) <= MESSAGE_LENGTH else f"{error.message[:MESSAGE_LENGTH]}..."
        yield FieldError(pointer=pointer(["recipe", "config", *error.absolute_path]), message=f"{message}.")
