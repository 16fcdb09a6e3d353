"""Request bodies: bytes to data, data to a model, and whatever is wrong to field errors that say what is allowed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import yaml
from anyio.to_thread import run_sync
from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from api_schemas.complaints import sentence
from api_schemas.errors import FieldError, InvalidRequest, MalformedBody, PayloadTooLarge, UnsupportedMediaType
from api_schemas.specfile import Loader

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
KINDS = f"{JSON_TYPES[0]} or {YAML_TYPES[0]}"
MAX_ERRORS = 50
NO_PARAMETER = "There is no such parameter."

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[int | str]
Errors = Iterable[FieldError]
Look = Callable[[Request, Any], Errors]


def body_of(
    model: type[Model], unknown: str | None = None, further: Look | None = None
) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as this model; `unknown` is said of fields that it does not have.

    `further` looks for more in a body that is refused, so that all is told at once. The dependency raises
    InvalidRequest, MalformedBody, UnsupportedMediaType, PayloadTooLarge.
    """

    async def read(request: Request) -> Model:
        raw = await _read(request, request.app.state.context.settings.max_body_bytes)
        kind = request.headers.get("content-type", "")
        if not raw.strip():
            raise _no_body(model)
        look = further and partial(further, request)
        # YAML is slow: others go on
        return await run_sync(lambda: _check_body(model, _parse(raw, kind), unknown, look))

    return read


def check(model: type[Model], data: Any, unknown: str | None = None) -> Model:
    """The data as this model. Raises InvalidRequest with an error for each field."""
    return _checked(model.model_validate, model, data, unknown)


def _check_body(model: type[Model], data: Any, unknown: str | None, further: partial[Errors] | None) -> Model:
    """As the schema has it: `true` is no number, and neither is "1"; but 1.0 is an integer."""

    def validate(data: Any) -> Model:
        return model.model_validate_json(json.dumps(data), strict=True)

    return _checked(validate, model, _plain(data), unknown, further)


def _checked(
    validate: Callable[[Any], Model],
    model: type[Model],
    data: Any,
    unknown: str | None,
    further: partial[Errors] | None = None,
) -> Model:
    try:
        return validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)[:MAX_ERRORS]
        schema = model.model_json_schema()
        told = [_field_error(each, data, schema, unknown) for each in found]
        raise invalid([*told, *(further(data) if further else ())][:MAX_ERRORS]) from error


def _plain(data: Any) -> Any:
    """With whole numbers as integers, as far as a float counts them."""
    if isinstance(data, float) and data.is_integer() and abs(data) < 2**53:
        return int(data)
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    return [_plain(value) for value in data] if isinstance(data, list) else data


def invalid(errors: Sequence[FieldError]) -> InvalidRequest:
    """The exception for these errors; its detail is the first of them."""
    first = errors[0]
    more = f" ({len(errors) - 1} more below `errors`)" if len(errors) > 1 else ""
    return InvalidRequest(f"{first.pointer or 'The body'}: {first.message}{more}", errors=errors)


def pointer(steps: Iterable[int | str]) -> str:
    """RFC 6901."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


async def _read(request: Request, limit: int) -> bytes:
    too_large = PayloadTooLarge(f"The body may have {limit} bytes.")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise too_large
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit:
            raise too_large
    return bytes(raw)


def _no_body(model: type[BaseModel]) -> InvalidRequest:
    fields = ", ".join(
        name if field.is_required() else f"{name} (optional)" for name, field in model.model_fields.items()
    )
    message = f"A body is needed, as {KINDS}, with these fields: {fields}."
    return invalid([FieldError(pointer="", message=message)])


def _parse(raw: bytes, content_type: str) -> Any:
    """Only JSON and YAML: a page of another site cannot send these without asking first."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        return _from_json(_yaml_to_json(raw), allow_inf_nan=True)
    if kind in JSON_TYPES:
        return _from_json(raw)
    raise UnsupportedMediaType(f"The Content-Type of the body must be {KINDS}, not {kind or 'left out'}.")


def _from_json(raw: bytes, *, allow_inf_nan: bool = False) -> Any:
    """What is not finite has a name in YAML; JSON has none, but may spell such a number."""
    try:
        data = from_json(raw, allow_inf_nan=allow_inf_nan)
    except ValueError as error:
        raise MalformedBody(f"The body is not valid JSON: {error}.") from error
    _check_numbers(data)
    return data


def _check_numbers(data: Any) -> None:
    if found := list(islice(_infinite(data, ()), MAX_ERRORS)):
        message = f"Must be a finite number, at most {sys.float_info.max:.1e}."
        raise invalid([FieldError(pointer=pointer(steps), message=message) for steps in found])


def _infinite(data: Any, steps: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    """Where numbers such as 1e400 are: JSON can spell them, but no float holds them, and no answer could show them."""
    if isinstance(data, float) and not math.isfinite(data):
        yield steps
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, part in parts:
        yield from _infinite(part, (*steps, step))


class _YamlLoader(Loader):
    """YAML in which no alias makes a small text a huge value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # types-PyYAML lacks it
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def _yaml_to_json(raw: bytes) -> bytes:
    """By way of JSON, so that both kinds of body obey the same rules (finite numbers, depth, characters)."""
    try:
        return json.dumps(yaml.load(raw, _YamlLoader), default=str).encode()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise _not_yaml(f"{error.problem}{where}") from error
    except (yaml.YAMLError, UnicodeError, TypeError, ValueError, RecursionError) as error:
        raise _not_yaml(" ".join(str(error).split())) from error
    except (AttributeError, LookupError) as error:  # how PyYAML fails at `!!timestamp x`, `!!bool x`, `!!int ""`
        raise _not_yaml("a value is not what its tag says") from error


def _not_yaml(why: str) -> MalformedBody:
    return MalformedBody(f"The body is not valid YAML: {why}.", code="malformed_yaml")


def _field_error(error: ErrorDetails, data: Any, schema: Mapping[str, Any], unknown: str | None) -> FieldError:
    steps, within = _locate(error, data), _node(schema, error["loc"][:-1])
    kind = error["type"]
    if kind == "extra_forbidden":
        message = unknown or f"There is no such field; there are: {_names(within.get('properties', {}))}."
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        union = _node(schema, error["loc"])
        steps = [*steps, str(error["ctx"]["discriminator"]).strip("'")]
        message = f"Must be one of: {_names(union.get('discriminator', {}).get('mapping', {}))}."
    elif kind == "missing":
        message = "This field is required."
    else:
        message = sentence(error)
    return FieldError(pointer=pointer(steps), message=message)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _locate(error: ErrorDetails, data: Any) -> list[int | str]:
    """The steps of the error that lead through the data itself: tags of unions and `[key]` do not."""
    steps: list[int | str] = []
    for number, step in enumerate(error["loc"], start=1):
        if _holds(data, step):
            data = data[step]
        elif number < len(error["loc"]) or error["type"] != "missing":
            continue
        steps.append(step)
    return steps


def _holds(data: Any, step: int | str) -> bool:
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


def _node(root: Mapping[str, Any], location: Location) -> Mapping[str, Any]:
    """The JSON schema at an error's location; {} where there is none."""
    node = _resolve(root, root)
    for step in location:
        if step in node.get("discriminator", {}).get("mapping", {}):
            node = {"$ref": node["discriminator"]["mapping"][step]}
        elif isinstance(step, int):
            prefix = node.get("prefixItems", [])
            node = prefix[step] if step < len(prefix) else node.get("items", {})
        else:
            node = node.get("properties", {}).get(step, node.get("additionalProperties", {}))
        node = _resolve(root, node)
    return node


def _resolve(root: Mapping[str, Any], node: Any) -> Mapping[str, Any]:
    """Through references, and through `X | null` to X."""
    while isinstance(node, dict):
        if "$ref" in node:
            node = root.get("$defs", {}).get(node["$ref"].rpartition("/")[2], {})
            continue
        options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
        if len(options) != 1:
            return node
        node = options[0]
    return {}
