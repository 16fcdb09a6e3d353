"""What is said of a value that does not fit: what is allowed, in words that are not Pydantic's."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from api_schemas.complaints import phrase, sentence


class Kind(StrEnum):
    ONE = "one"
    TWO = "two"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["part"]


class Other(BaseModel):
    name: Literal["other"]


def refuse(value: Any) -> Any:
    raise ValueError(f"{value} must be odd")


Union = Annotated[Part | Other, Field(discriminator="name")]
CASES: list[tuple[Any, Any, str]] = [
    (int, "x", "must be an integer"),
    (int, 1.5, "must be an integer"),
    (float, [], "must be a number"),
    (bool, "perhaps", "must be true or false"),
    (str, 3, "must be a string"),
    (list[int], 3, "must be a list"),
    (tuple[int, int], "ab", "must be a list"),
    (frozenset[int], 3, "must be a list"),
    (dict[str, int], 3, "must be an object"),
    (Part, 3, "must be an object"),
    (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "must be a finite number"),
    (Annotated[float, Field(gt=0)], 0, "must be greater than 0"),
    (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
    (Annotated[float, Field(lt=0.5)], 1, "must be less than 0.5"),
    (Annotated[int, Field(le=10_000)], 10**6, "must be at most 10000"),
    (Annotated[str, Field(min_length=1)], "", "must have at least 1 character"),
    (Annotated[str, Field(max_length=2)], "abc", "must have at most 2 characters"),
    (Annotated[list[int], Field(min_length=1)], [], "must have at least 1 part"),
    (Annotated[dict[str, int], Field(max_length=0)], {"a": 1}, "must have at most 0 parts"),
    (Literal["a", "b"], "c", "must be 'a' or 'b'"),
    (Kind, "three", "must be 'one' or 'two'"),
    (Annotated[str, Field(pattern="^a$")], "b", "must match ^a$"),
    (Annotated[int, AfterValidator(refuse)], 2, "2 must be odd"),
    (Part, {}, "this field is required"),
    (Part, {"name": "part", "x": 1}, "there is no such field"),
    (Union, {"name": "x"}, "must be one of: 'part', 'other'"),
    (Union, {}, "must have 'name'"),
    (bytes, 3, "must be a valid bytes"),
]


@pytest.mark.parametrize(("kind", "value", "words"), CASES, ids=[words for _, _, words in CASES])
def test_it_says_what_is_allowed(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(value)
    (error,) = refused.value.errors()
    assert phrase(error) == words
    assert sentence(error) == f"{words[0].upper()}{words[1:]}."
