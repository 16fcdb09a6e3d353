"""What the framework cannot find out for openapi.json by itself: bodies that `validation.body_of` reads, that failures
have a media type of their own, and which scope a token needs, as `service.access` has it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api_schemas.errors import PROBLEM_MEDIA_TYPE
from service.access import needed
from service.validation import JSON_TYPES, YAML_TYPES

_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token (`python -m service token create`), where the service asks for one (EMASCALE_AUTH=token). "
    "The scopes are read, submit and admin; each holds those before it.",
}
_REFERENCE = "#/components/schemas/{model}-Input"


def _failure(description: str) -> dict[str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this model."""
    media = {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
    content = {JSON_TYPES[0]: media, YAML_TYPES[0]: media}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, *bodies: type[BaseModel], closed: bool) -> None:
    """Add the schemas of these bodies to openapi.json, and say what failures are and what needs a token.

    Where the service is not `closed` a token may come, and nothing needs it.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
        named = {f"{name}-Input": schema for name, schema in schemas["$defs"].items()}
        document["components"]["schemas"].update(named)
        document["components"]["securitySchemes"] = {"bearer": _BEARER}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                operation["responses"]["default"] = _failure("What went wrong.")
                _protect(operation, method.upper(), path, closed=closed)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI documents it


def _protect(operation: dict[str, Any], method: str, path: str, *, closed: bool) -> None:
    if scope := needed(method, path):
        operation["security"] = [{"bearer": [scope.value]}] if closed else [{"bearer": [scope.value]}, {}]
        operation["responses"]["401"] = _failure("A valid token is needed.")
        operation["responses"]["403"] = _failure(f"The token is not good for this, which needs scope {scope}.")
