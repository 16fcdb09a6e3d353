"""The dashboard: one page and the files that it loads, as they were built from `service/dashboard/ui`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api_schemas.errors import NotFound

STATIC = Path(__file__).parents[1] / "dashboard" / "static"
KINDS = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/")
def page(request: Request) -> Response:
    """The page. It changes with the service, so it is asked for anew each time."""
    return _file(STATIC / "index.html", request, {"Content-Security-Policy": POLICY})


@router.head("/assets/{name}")
@router.get("/assets/{name}")
def asset(name: str, request: Request) -> Response:
    """What the page loads. Names hold a hash of the content, so nobody has to ask twice."""
    return _file(STATIC / "assets" / name, request, {"Cache-Control": FOREVER})


def _file(path: Path, request: Request, headers: dict[str, str]) -> Response:
    """The file, or 304 where the browser has it. Raises NotFound."""
    if path.suffix not in KINDS or not path.is_file():
        raise NotFound(f"There is nothing at {request.url.path}.")
    content = path.read_bytes()
    headers = headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=KINDS[path.suffix])
