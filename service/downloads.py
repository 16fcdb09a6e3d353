"""Files of a job's storage over HTTP: whole, or the range that was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from api_schemas.errors import EmascaleError, PreconditionFailed
from service import etags
from service.storage import Folder, Stored

CHUNK = 2**18
KIND = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


class RangeNotSatisfiable(EmascaleError):
    """The file has no such range."""

    code = "range_not_satisfiable"
    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.")
        self.headers = {"Content-Range": f"bytes */{size}"}


def download(folder: Folder, path: str, request: Request) -> Response:
    """The file, or a part of it (`Range`, `If-Range`), or 304 (`If-None-Match`); of a HEAD the headers alone.

    Raises NotFound, Unavailable, RangeNotSatisfiable, PreconditionFailed.
    """
    file = folder.find(path)
    etag = f'"{etags.digest(file.version)}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes"}
    if not etags.matches(request.headers.get("if-match", "*"), etag):
        raise PreconditionFailed("The file is not the one that `If-Match` names.")
    if etags.is_known(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    whole = request.method == "HEAD" or request.headers.get("if-range", etag) != etag
    asked = None if whole else wanted(request.headers.get("range", ""), file.bytes)
    start, stop = asked or (0, file.bytes)
    if asked:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    headers["Content-Length"] = str(stop - start)
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(path.rpartition('/')[2], safe='')}"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=KIND)
    return StreamingResponse(_content(folder, file, start, stop), 206 if asked else 200, headers, KIND)


def wanted(header: str, size: int) -> tuple[int, int] | None:
    """[start, stop) of a `Range` header; None: the whole file, as for what is no single range of bytes (RFC 9110).

    Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return start, stop


def _content(folder: Folder, file: Stored, start: int, stop: int) -> Iterator[bytes]:
    with folder.open(file.path) as source:
        source.seek(start)
        while start < stop and (chunk := source.read(min(CHUNK, stop - start))):
            start += len(chunk)
            yield chunk
