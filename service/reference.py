"""openapi.json as a page to read. It needs no script and loads nothing, so it also works without the internet."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from service.shapes import Schema, fallback, prose, shape

_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}"
    "code{font-size:1rem}h2{margin-top:2.5rem}"
)

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
_INTRO = (
    '<p>The HTTP API, as <a href="/openapi.json">openapi.json</a> has it. Every failure is a '
    '<a href="#Problem">Problem</a>. <a href="#schemas">What bodies and answers hold</a> comes last.</p>'
)


def page(document: dict[str, Any]) -> str:
    """The HTML."""
    operations = "".join(
        part
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method, path, operation)
    )
    named = document.get("components", {}).get("schemas", {})
    schemas = "".join(part for name, schema in sorted(named.items()) for part in _schema(name, schema))
    title = escape(document["info"]["title"])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = f'<h1>{title}</h1>{_INTRO}{operations}<h2 id="schemas">What bodies and answers hold</h2>{schemas}'
    return f'<!doctype html><html lang="en">{head}<style>{_STYLE}</style>{body}</html>'


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>{_paragraphs(operation.get('description', ''))}"
    for scopes in filter(None, operation.get("security", [])):
        yield f"<p>Where the service asks for tokens: scope {escape(', '.join(scopes['bearer']))}.</p>"
    yield _list(_parameter(parameter) for parameter in operation.get("parameters", []))
    if content := operation.get("requestBody", {}).get("content"):
        (body,) = {shape(media["schema"]) for media in content.values()}
        yield f"<p>Body: {body}, as {' or '.join(map(escape, content))}.</p>"
    answers = operation.get("responses", {}).items()
    yield _list(_answer(status, answer) for status, answer in sorted(answers) if status != "default")


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    about = ", ".join(filter(None, (parameter["in"], shape(schema), fallback(schema))))
    return f"<code>{escape(parameter['name'])}</code> ({about}) {prose(parameter.get('description', ''))}"


def _answer(status: str, answer: dict[str, Any]) -> str:
    """What a success holds, and why it is a failure."""
    if status >= "3":
        return f"{status}: {prose(answer['description'])}"
    content = answer.get("content", {})
    kinds = [f"{shape(media.get('schema', {}))} ({escape(kind)})" for kind, media in content.items()]
    notes = [prose(media["schema"]["description"]) for media in content.values() if "description" in media["schema"]]
    return f"{status}: {'; '.join(kinds) or 'nothing'}{''.join(f'<br>{note}' for note in notes)}"


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>{_paragraphs(schema.get("description", ""))}'
    fields = schema.get("properties", {})
    if fields:
        required = schema.get("required", ())
        yield _list(_field(field, part, needed=field in required) for field, part in fields.items())
    else:
        yield f"<p>{shape(schema)}</p>"


def _field(name: str, schema: Schema, *, needed: bool) -> str:
    about = ", ".join(filter(None, (shape(schema), "required" if needed else fallback(schema))))
    return f"<code>{escape(name)}</code> ({about}) {prose(schema.get('description', ''))}"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{prose(part)}</p>" for part in text.split("\n\n"))


def _list(items: Iterable[str]) -> str:
    found = [f"<li>{item}</li>" for item in items]
    return f"<ul>{''.join(found)}</ul>" if found else ""
