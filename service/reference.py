"""openapi.json as a page to read. It needs no script and loads nothing, so it also works without the internet."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}code{font-size:1rem}"

_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_STYLE_DIGEST}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The page's Content-Security-Policy: its own style and nothing else."""


def page(document: dict[str, Any]) -> str:
    """The HTML."""
    parts = "".join(
        part
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method, path, operation)
    )
    title = escape(document["info"]["title"])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    intro = '<p>The HTTP API. Its schemas are in <a href="/openapi.json">openapi.json</a>.</p>'
    return f'<!doctype html><html lang="en">{head}<style>{_STYLE}</style><h1>{title}</h1>{intro}{parts}</html>'


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    for scopes in filter(None, operation.get("security", [])):
        yield f"<p>Where the service asks for tokens: scope {escape(', '.join(scopes['bearer']))}.</p>"
    rows = [_parameter(parameter) for parameter in operation.get("parameters", [])]
    if rows:
        yield f"<ul>{''.join(rows)}</ul>"


def _parameter(parameter: dict[str, Any]) -> str:
    name, place = escape(parameter["name"]), escape(parameter["in"])
    return f"<li><code>{name}</code> ({place}) {escape(parameter.get('description', ''))}</li>"
