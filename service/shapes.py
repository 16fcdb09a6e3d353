"""A JSON schema in words, as HTML: `integer, 1 to 200`, `list of JobRow`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Schema = Mapping[str, Any]
LIMITS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " entries"),
)


def prose(text: str) -> str:
    """Text whose back-ticks mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def shape(schema: Schema) -> str:
    """What may stand there."""
    kind = _kind(schema)
    return ", ".join([kind, *_limits(schema)]) if kind else "anything"


def fallback(schema: Schema) -> str:
    """What counts where nothing is said; empty: nothing does."""
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else f"default {_value(default)}"


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(shape(option) for option in options)
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return " or ".join(map(_value, schema["enum"]))
    return _typed(schema)


def _typed(schema: Schema) -> str:
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"[{'; '.join(map(shape, schema['prefixItems']))}]"
        case "array":
            return f"list of {shape(schema.get('items', {}))}"
        case "object":
            values: Any = schema.get("additionalProperties") or next(
                iter(schema.get("patternProperties", {}).values()), {}
            )
            return f"map of {shape(values)}" if isinstance(values, dict) and values else "object"
        case "string":
            return _text(schema)
        case kind:
            return escape(str(kind or ""))


def _text(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return "time (RFC 3339)"
    if "contentSchema" in schema:
        return f"text of {shape(schema['contentSchema'])}"
    if examples := schema.get("examples"):
        return f"string such as {' or '.join(map(_value, examples))}"
    pattern = schema.get("pattern")
    return f"string like <code>{escape(pattern)}</code>" if pattern else "string"


def _limits(schema: Schema) -> Iterator[str]:
    for least, most, unit in LIMITS:
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None and low != high:
            yield f"{_number(low)} to {_number(high)}{unit}"
        elif low is not None and high is not None and "prefixItems" not in schema:
            yield f"{_number(low)}{unit}"
        elif low is not None and high is None:
            yield f"at least {_number(low)}{unit}"
        elif high is not None and low is None:
            yield f"at most {_number(high)}{unit}"
    for bound, words in (("exclusiveMinimum", "above"), ("exclusiveMaximum", "below")):
        if bound in schema:
            yield f"{words} {_number(schema[bound])}"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(value: Any) -> str:
    return f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>"
