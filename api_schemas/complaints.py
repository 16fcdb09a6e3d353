"""What Pydantic finds wrong with a value, in the words of the project: what is allowed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from api_schemas.wording import counted

TYPES = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""What a value must be, by the types of a JSON schema."""
KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), TYPES["integer"]),
    **dict.fromkeys(("float_type", "float_parsing"), TYPES["number"]),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), TYPES["boolean"]),
    **dict.fromkeys(("string_type", "string_unicode"), TYPES["string"]),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), TYPES["array"]),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), TYPES["object"]),
    "none_required": TYPES["null"],
}
"""What a value must be, by Pydantic's types of errors."""


def sentence(error: ErrorDetails) -> str:
    """What is allowed, as a sentence of its own."""
    text = phrase(error)
    return f"{text[:1].upper()}{text[1:]}."


def phrase(error: ErrorDetails) -> str:
    """The same behind a colon: without a capital, and without a full stop."""
    kind, said, context = error["type"], error["msg"], error.get("ctx", {})
    if kind in KINDS:
        return f"must be {KINDS[kind]}"
    if limit := _limit(kind, context):
        return f"must {limit}"
    match kind:
        case "missing":
            return "this field is required"
        case "extra_forbidden":
            return "there is no such field"
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "union_tag_invalid":
            return f"must be one of: {context['expected_tags']}"
        case "union_tag_not_found":
            return f"must have {context['discriminator']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
    said = said.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said.replace("Input should", "must", 1).rstrip(".")


def misfit(error: ValidationError) -> str:
    """What of an answer a client does not know, or misses; empty: the answer as a whole."""
    found = error.errors(include_url=False)[0]
    field, value = ".".join(map(str, found["loc"])), found["input"]
    if found["type"] == "missing":
        return f"without the field {field}, which this client needs"
    if found["type"] == "union_tag_invalid":
        tag = found["ctx"]["discriminator"].strip("'")
        field, value = ".".join(filter(None, (field, tag))), found["ctx"]["tag"]
    return f"with a field {field} that this client does not know ({value!r:.80})" if field else ""


def _limit(kind: str, context: Mapping[str, Any]) -> str:
    """A bound of a number or a length; empty: the error is another one."""
    match kind:
        case "greater_than":
            return f"be greater than {_number(context['gt'])}"
        case "greater_than_equal":
            return f"be at least {_number(context['ge'])}"
        case "less_than":
            return f"be less than {_number(context['lt'])}"
        case "less_than_equal":
            return f"be at most {_number(context['le'])}"
        case "string_too_short":
            return f"have at least {counted(context['min_length'], 'character')}"
        case "string_too_long":
            return f"have at most {counted(context['max_length'], 'character')}"
        case "too_short":
            return f"have at least {counted(context['min_length'], 'part')}"
        case "too_long":
            return f"have at most {counted(context['max_length'], 'part')}"
    return ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
