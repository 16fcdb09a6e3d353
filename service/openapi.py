"""What the framework cannot find out for openapi.json by itself: bodies that `validation.body_of` reads, the messages
of streams, how each operation may fail, and which scope a token needs, as `service.access` has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from api_schemas.errors import PROBLEM_MEDIA_TYPE
from service.access import needed
from service.validation import JSON_TYPES, YAML_TYPES

STREAM = "text/event-stream"
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token (`python -m service token create`), where the service asks for one (EMASCALE_AUTH=token). "
    "The scopes are read, submit and admin; each holds those before it.",
}
_COMPONENTS = "#/components/schemas/"
_OUTPUT = f"{_COMPONENTS}{{model}}"
_INPUT = f"{_OUTPUT}-Input"
_PROBLEM = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"{_COMPONENTS}Problem"}}}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this model."""
    media = {"schema": {"$ref": _INPUT.format(model=model.__name__)}}
    content = {JSON_TYPES[0]: media, YAML_TYPES[0]: media}
    return {"requestBody": {"required": True, "content": content}}


def sends(name: str, how: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that also answers as a stream, whose messages are this schema; `how` says which."""
    schema = {
        "type": "string",
        "description": f"Server-sent events; the data of each is `{name}` as JSON. {how}",
        "contentMediaType": JSON_TYPES[0],
        "contentSchema": {"$ref": _OUTPUT.format(model=name)},
    }
    return {200: {"content": {STREAM: {"schema": schema}}}}


def describe(app: FastAPI, *, bodies: Sequence[type[BaseModel]], messages: Mapping[str, Any], closed: bool) -> None:
    """Add the schemas of these bodies and messages to openapi.json, and say how each operation fails, and what needs a
    token.

    Where the service is not `closed` a token may come, and nothing needs it.
    """
    generate = app.openapi
    made: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal made
        if made is None:
            document = deepcopy(generate())
            _add_schemas(document["components"]["schemas"], bodies, messages)
            document["components"]["securitySchemes"] = {"bearer": _BEARER}
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    _protect(operation, method.upper(), path, closed=closed)
                    _fail(operation, method.upper(), path)
                    operation["summary"] = _title(operation["description"])
            _drop_unused(document)
            made = document  # whole: others may ask at the same moment
        return made

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI documents it


def _add_schemas(schemas: dict[str, Any], bodies: Sequence[type[BaseModel]], messages: Mapping[str, Any]) -> None:
    _, read = models_json_schema([(body, "validation") for body in bodies], ref_template=_INPUT)
    schemas |= {f"{name}-Input": schema for name, schema in read["$defs"].items()}
    for name, message in messages.items():
        schema = TypeAdapter(message).json_schema(mode="serialization", ref_template=_OUTPUT)
        schemas |= {name: schema} | schema.pop("$defs", {}) | schemas


def _drop_unused(document: dict[str, Any]) -> None:
    """Schemas that only took part in making others."""
    schemas = document["components"]["schemas"]
    while unused := schemas.keys() - set(_references(document)):
        for name in unused:
            del schemas[name]


def _references(part: Any) -> Iterator[str]:
    """Names of the components that are referred to."""
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        yield part["$ref"].removeprefix(_COMPONENTS)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _references(inner)


def _title(description: str) -> str:
    """The first sentence, for where Markdown is not rendered."""
    return re.split(r"[.:;](?:\s|$)", description, maxsplit=1)[0].replace("`", "")


def _protect(operation: dict[str, Any], method: str, path: str, *, closed: bool) -> None:
    if scope := needed(method, path):
        operation["security"] = [{"bearer": [scope.value]}] if closed else [{"bearer": [scope.value]}, {}]


def _fail(operation: dict[str, Any], method: str, path: str) -> None:
    """Each answer that is not a success, as a problem."""
    found = dict(_failures(operation, method, path)) | {"default": "Whatever else went wrong."}
    operation["responses"] |= {status: {"description": why, "content": _PROBLEM} for status, why in found.items()}


def _failures(operation: Mapping[str, Any], method: str, path: str) -> Iterator[tuple[str, str]]:
    if "requestBody" in operation:
        yield "400", "The body is not JSON or YAML; `detail` says where."
        yield "413", "The body is larger than the service takes."
        yield "415", "The body's Content-Type is neither application/json nor application/yaml."
    if scope := needed(method, path):
        yield "401", "A valid token is needed."
    lacking = f", or the token lacks scope {scope}" if scope else ""
    yield "403", f"A page of another site asked, or by a name that the service does not know{lacking}."
    if "{" in path:
        yield "404", "There is none of that name."
    if path.startswith("/v1/jobs") and method != "GET":
        yield "409", "The job's status does not allow it." if "{" in path else "The Idempotency-Key has another body."
    if method == "PATCH":
        yield "412", "The job has changed since it had the `ETag` that `If-Match` names."
    if path.endswith("{path}"):
        yield "412", "The file is not the one that `If-Match` names."
        yield "416", "The file has no such range."
    if path.startswith("/v1"):
        yield "422", "Something of the request is not allowed; `errors` names each, and what is."
    if scope or path == "/readyz":
        yield "503", "Something that the service needs does not answer; ask again."
