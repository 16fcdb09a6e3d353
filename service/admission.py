"""Whether a spec may become a job: the recipe exists, its config fits, and it has the EMA that it learns from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from sqlmodel import Session, col, select

from api_schemas.complaints import TYPES
from api_schemas.errors import FieldError, UnknownRecipe
from api_schemas.jobs import JobSpec, RecipeSpec
from api_schemas.views import RecipeInfo
from service.db import Database
from service.own_recipes import Unreadable
from service.tables import RecipeRow
from service.validation import MAX_ERRORS, invalid, pointer

logger = logging.getLogger(__name__)

MESSAGE_LENGTH = 300
NEEDS_EMA = "Recipe {!r} learns from a teacher, the EMA: give the job one, as {{momentum: 0.99}}."

ReadRecipe = Callable[[RecipeSpec], RecipeInfo]
"""Reads a recipe that the catalogue does not have. Raises Unreadable."""


def own_recipe(read: ReadRecipe | None, recipe: RecipeSpec) -> RecipeInfo | None:
    """What the user's own recipe asks for; None where it is not read: only the nodes may have it."""
    if read is None or ":" not in recipe.name:
        return None
    try:
        return read(recipe)
    except Unreadable as error:
        logger.info("%s", error, extra={"action": "recipe_unread", "recipe": recipe.name})
        return None


def check_recipe(session: Session, spec: JobSpec, own: RecipeInfo | None) -> None:
    """The recipe must accept its config and have the EMA that it needs, and one without a module be in the catalogue.

    `own` is what `own_recipe` found. What cannot be looked at, as the catalogue before the cluster ever answered, is
    taken as it is; the workers check it. Raises UnknownRecipe, InvalidRequest.
    """
    recipe = own or _of_catalogue(session, spec.recipe.name)
    if errors := _misfits(recipe, spec.recipe, has_ema=spec.ema is not None):
        raise invalid(errors)


def recipe_errors(database: Database, read: ReadRecipe | None, body: Any) -> list[FieldError]:
    """What `check_recipe` would say of a body that is no spec, as far as that names a recipe."""
    try:
        asked = RecipeSpec.model_validate(body["recipe"])
    except (ValueError, LookupError, TypeError):
        return []
    own = own_recipe(read, asked)
    try:
        with database.reading() as session:
            recipe = own or _of_catalogue(session, asked.name)
    except UnknownRecipe as unknown:
        return unknown.errors
    return _misfits(recipe, asked, has_ema=body.get("ema") is not None)


def _misfits(recipe: RecipeInfo | RecipeRow | None, asked: RecipeSpec, *, has_ema: bool) -> list[FieldError]:
    """What a job has that its recipe does not take, or lacks; nothing of a recipe that nobody has looked at."""
    if recipe is None:
        return []
    errors = _config_errors(recipe.config_schema, asked)
    if recipe.needs_ema and not has_ema:
        errors.append(FieldError(pointer="/ema", message=NEEDS_EMA.format(recipe.name)))
    return errors


def _of_catalogue(session: Session, name: str) -> RecipeRow | None:
    row = session.get(RecipeRow, name)
    if row is None and ":" not in name:
        _check_catalogue(session, name)
    return row


def _check_catalogue(session: Session, name: str) -> None:
    names = session.exec(select(RecipeRow.name).order_by(col(RecipeRow.name))).all()
    if names:
        message = f"There is no recipe {name!r}; there are: {', '.join(names)}; or name one as package.module:Class."
        raise UnknownRecipe(message, errors=[FieldError(pointer="/recipe/name", message=message)])


def _config_errors(schema: Mapping[str, Any], recipe: RecipeSpec) -> list[FieldError]:
    validator = Draft202012Validator(schema, registry=Registry())
    found: list[ValidationError] = sorted(validator.iter_errors(recipe.config), key=lambda error: str(error.json_path))
    return [_field_error(error) for error in found[:MAX_ERRORS]]


def _field_error(error: ValidationError) -> FieldError:
    said = _said(error)
    message = said if len(said) <= MESSAGE_LENGTH else f"{said[:MESSAGE_LENGTH]}..."
    return FieldError(pointer=pointer(["recipe", "config", *error.absolute_path]), message=f"{message}.")


def _said(error: ValidationError) -> str:
    """What is wrong, and what is allowed."""
    if error.validator == "anyOf" and (inner := _of_optional(error)):
        return _said(inner)
    schema = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties":
        return f"{error.message}; there are: {', '.join(sorted(schema.get('properties', {})))}"
    if error.validator == "pattern" and (examples := schema.get("examples")):
        return f"Must read as {' or '.join(map(repr, examples))}, not {error.instance!r}"
    if error.validator == "type" and isinstance(error.validator_value, str):
        return f"Must be {TYPES[error.validator_value]}, not {error.instance!r}"
    return str(error.message)


def _of_optional(error: ValidationError) -> ValidationError | None:
    """Where the schema is `X | null`, why the value is no X."""
    null = {each.schema_path[0] for each in error.context or [] if each.schema == {"type": "null"}}
    reasons = [each for each in error.context or [] if each.schema_path[0] not in null]
    return reasons[0] if len({each.schema_path[0] for each in reasons}) == 1 else None
