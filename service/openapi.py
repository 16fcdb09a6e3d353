"""What the framework cannot find out for openapi.json by itself: bodies that `validation.body_of` reads, and that
failures have a media type of their own."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api_schemas.errors import PROBLEM_MEDIA_TYPE
from service.validation import JSON_TYPES, YAML_TYPES

_FAILURE = {
    "description": "What went wrong.",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_REFERENCE = "#/components/schemas/{model}-Input"


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this model."""
    media = {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
    content = {JSON_TYPES[0]: media, YAML_TYPES[0]: media}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Add the schemas of these bodies to openapi.json, and say what failures are."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
        named = {f"{name}-Input": schema for name, schema in schemas["$defs"].items()}
        document["components"]["schemas"].update(named)
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"]["default"] = _FAILURE
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI documents it
