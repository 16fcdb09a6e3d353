"""What a schema is called on the page of the reference."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.shapes import fallback, prose, shape

CASES: list[tuple[dict[str, Any], str]] = [
    ({"type": "integer", "minimum": 1, "maximum": 200}, "integer, 1 to 200"),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e4}, "number, at most 10000, above 0"),
    ({"type": "string", "minLength": 1}, "string, at least 1 characters"),
    ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, "time (RFC 3339) or null"),
    ({"type": "array", "items": {"$ref": "#/components/schemas/Node"}, "maxItems": 9}, "list of Node, at most 9 items"),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}], "minItems": 2, "maxItems": 2},
        "[integer; number]",
    ),
    ({"type": "object", "additionalProperties": {"type": "number"}}, "map of number"),
    ({"type": "object", "additionalProperties": True}, "object"),
    ({"enum": ["a", "b"], "type": "string"}, '"a" or "b"'),
    ({"const": "sgd"}, '"sgd"'),
    ({"type": "string", "examples": ["90d"]}, 'string such as "90d"'),
    ({"type": "string", "pattern": "^<a>$"}, "string like ^<a>$"),
    ({}, "anything"),
]


@pytest.mark.parametrize(("schema", "words"), CASES, ids=[words for _, words in CASES])
def test_what_may_stand_there_in_words(schema: dict[str, Any], words: str) -> None:
    text = re.sub(r"</?(a|code)\b[^>]*>", "", shape(schema))
    assert text.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">") == words


def test_a_name_leads_to_its_schema() -> None:
    assert shape({"$ref": "#/components/schemas/Node"}) == '<a href="#Node">Node</a>'


def test_a_default_is_told_where_there_is_one() -> None:
    assert fallback({"default": False}) == "default <code>false</code>"
    assert fallback({"default": None}) == fallback({"default": []}) == fallback({}) == ""


def test_back_ticks_are_code_and_nothing_else_is_markup() -> None:
    assert prose("<b> `a <i>` & b") == "&lt;b&gt; <code>a &lt;i&gt;</code> &amp; b"
