"""What a worker says of an error that ended it."""

from __future__ import annotations

import pytest

from api_schemas.errors import UnknownRecipe
from workers.failures import failure_of
from workers.recipes.classify import Classify
from workers.recipes.language import Language
from workers.storage import StorageError


def test_a_config_that_does_not_fit_names_the_field() -> None:
    """Where the service could not look at the recipe, the worker is the first to see it."""
    with pytest.raises(ValueError, match="depth") as raised:
        Classify.Config.model_validate({"depth": 0})
    failure = failure_of(raised.value, lambda count: [f"line {count}"])
    assert failure.code == "recipe_config_invalid"
    assert failure.message.startswith("The recipe's config does not fit: depth: ")
    assert failure.log_tail == ["line 20"]
    assert "Traceback" not in failure.message


def test_all_that_is_wrong_with_a_config_is_named_and_fields_that_do_not_go_together_too() -> None:
    with pytest.raises(ValueError, match="depth") as raised:
        Classify.Config.model_validate({"depth": 0, "widths": 3})
    message = failure_of(raised.value, lambda _: []).message
    assert "depth: must be at least 1; widths: there is no such field" in message
    with pytest.raises(ValueError, match="heads") as raised:
        Language.Config.model_validate({"width": 30})
    message = failure_of(raised.value, lambda _: []).message
    assert message == "The recipe's config does not fit: width (30) must be a multiple of heads (4)."


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UnknownRecipe("There is none."), "unknown_recipe", "There is none."),
        (StorageError("write", "/full", "no space"), "storage_failed", "cannot write /full: no space"),
        (ZeroDivisionError("the slope is gone"), "recipe_raised", "raised ZeroDivisionError: the slope is gone"),
        (SystemExit(3), "recipe_raised", "raised SystemExit: 3"),
    ],
)
def test_every_error_has_a_code_and_a_sentence(error: BaseException, code: str, message: str) -> None:
    failure = failure_of(error, lambda _: [])
    assert failure.code == code
    assert message in failure.message


def test_an_error_without_a_word_of_its_own_is_named() -> None:
    assert failure_of(SystemExit(), lambda _: []).message == "The recipe raised SystemExit"
