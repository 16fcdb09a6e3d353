"""Job specs: what they refuse in words, and what they choose."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api_schemas.jobs import JobSpec, RecipeSpec, ResizeRequest
from tests.api_schemas.answers import SPEC


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate(SPEC | changes)


def complaint(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        spec(**changes)
    (error,) = caught.value.errors()
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


@pytest.mark.parametrize("name", ["a\0:b", "two\nlines", "bell\a", "\x7f", "\u202e"])
def test_a_recipe_s_name_is_printable(name: str) -> None:
    assert complaint(recipe={"name": name}) == "recipe.name: must not hold control characters"


@pytest.mark.parametrize("config", [{"text": "\0"}, {"\0": 1}, {"parts": [{"deep": ["a\0"]}]}])
def test_no_database_can_hold_a_nul(config: dict[str, Any]) -> None:
    changed = {"name": "classify", "config": config}
    assert complaint(recipe=changed) == "recipe.config: must not hold the character NUL"
    assert spec(recipe={"name": "classify", "config": {"text": "two\nlines", "parts": [1, None]}})


@pytest.mark.parametrize("name", ["", "bad!", " x", "a\n", "a\0", "\u00fc"])
def test_names_and_labels_say_what_they_may_hold(name: str) -> None:
    assert complaint(name=name).startswith("name: ")
    assert complaint(labels={"team": name}).startswith("labels.team: must begin and end with a letter or a digit")
    assert "pattern" in JobSpec.model_json_schema()["properties"]["name"]


def test_limits_in_the_wrong_order_are_named() -> None:
    message = "elasticity.workers: the minimum (4) must not exceed the maximum (1)"
    assert complaint(elasticity={"workers": [4, 1]}) == message


@pytest.mark.parametrize(
    ("optimizer", "fewest", "asked", "chosen"),
    [
        ("adamw", 2, None, "per_worker"),
        ("adamw", 1, None, "measured"),
        ("adamw", 1, "per_worker", "per_worker"),
        ("adamw", 2, "assume_noise", "assume_noise"),
        ("sgd", 2, None, "measured"),
        ("sgd", 2, "per_worker", "measured"),
        ("nadam", 2, "per_worker", "measured"),
        ("rmsprop", 2, "assume_noise", "assume_noise"),
    ],
)
def test_how_noise_is_treated(optimizer: str, fewest: int, asked: str | None, chosen: str) -> None:
    made = spec(
        optimizer={"name": optimizer, "lr": 0.1},
        elasticity={"workers": [fewest, 4]},
        scaling={"second_moment": asked},
    )

    assert made.scaling.second_moment == chosen
    assert JobSpec.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize("samples", [-1, 2**63, 10**30])
def test_a_resize_waits_for_a_sample_that_can_be_counted(samples: int) -> None:
    with pytest.raises(ValidationError):
        ResizeRequest(workers=2, at_samples=samples)
    assert ResizeRequest(workers=2, at_samples=2**63 - 1)


@pytest.mark.parametrize("url", ["package.zip", "/shared/package.zip", "s3://bucket/package", "s3://bucket/a b.zip"])
def test_a_package_is_the_url_of_a_zip_or_a_wheel(url: str) -> None:
    with pytest.raises(ValidationError, match=r"must be the URL of a .zip or .whl file"):
        RecipeSpec(name="own.package:Own", py_modules=(url,))
    assert RecipeSpec(name="own.package:Own", py_modules=("s3://bucket/own-1.0.whl",)).py_modules
