"""Answers that cost next to nothing to whoever has them already, and little to the others."""

from __future__ import annotations

import gzip
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import Response

from service import etags

IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The `ETag` that it must have, as it was answered last.")
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The `ETag` of the last answer: 304 while it is the same.")
]
AcceptEncoding = Annotated[str, Header(include_in_schema=False)]
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as `If-None-Match` says."}}
TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
WORTH_PACKING = 1000
"""Bytes; a shorter text gains nothing."""
LEVEL = 1  # of gzip: a page of jobs shrinks to a fifth; the higher ones take three times as long for a tenth of that


def unchanged(tag: str, if_none_match: str | None) -> Response | None:
    """304, where the tag is among those that were asked for."""
    if if_none_match is None or not etags.is_known(if_none_match, tag):
        return None
    return Response(status_code=304, headers={"ETag": tag})


def whole(text: bytes, tag: str | None, accept_encoding: str) -> Response:
    """JSON with its tag, compressed where that is asked for. Blocks for a moment where it is long."""
    headers = {"Vary": "Accept, Accept-Encoding"} | ({"ETag": tag} if tag else {})
    if "gzip" in accept_encoding and len(text) >= WORTH_PACKING:
        text = gzip.compress(text, LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(text, headers=headers, media_type="application/json")
