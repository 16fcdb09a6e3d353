"""Answers that cost next to nothing to whoever has them already."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import Response
from pydantic import BaseModel

IfNoneMatch = Annotated[str | None, Header()]
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as `If-None-Match` says."}}


def conditional(model: BaseModel, tag: str, if_none_match: str | None) -> Response:
    """The model, or 304 where it is the one that was asked for."""
    headers = {"ETag": tag}
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(model.model_dump_json(), headers=headers, media_type="application/json")
