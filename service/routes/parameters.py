"""Query parameters that several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Depends, Request

from api_schemas.errors import FieldError
from service.validation import NO_PARAMETER, invalid


async def _none(request: Request) -> None:
    if request.query_params:
        raise invalid([FieldError(pointer=f"?{name}", message=NO_PARAMETER) for name in request.query_params])


def headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads these headers by itself."""
    named = [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in meanings.items()
    ]
    return {"parameters": named}


RESUMES = headers({"Last-Event-ID": "Of a stream: the `id` of the last message that came, to go on after it."})
NONE = [Depends(_none)]
"""`dependencies` of a route without parameters: whoever adds `?dry_run=true` to it must not be misunderstood."""
