"""ETags: what an answer was like, in a word, and whether a header names it (RFC 9110)."""

from __future__ import annotations

import hashlib
import json
from functools import cache

from pydantic import BaseModel

from api_schemas.views import JobView

WEAK = "W/"


def of_job(revision: int) -> str:
    """That of a job's view: what a version of the service with other fields has said is not taken for it."""
    return f'"{revision}-{_fields_of(JobView)}"'


def of_text(text: str, kind: type[BaseModel]) -> str:
    """A weak one: of what matters in an answer of this kind, not of each of its bytes."""
    return f'{WEAK}"{digest(text + _fields_of(kind))}"'


def matches(if_match: str, tag: str) -> bool:
    """Whether `If-Match` has this one: `*` has all, and a weak one has none."""
    return if_match.strip() == "*" or tag in _listed(if_match)


def is_known(if_none_match: str, tag: str) -> bool:
    """Whether `If-None-Match` has this one, weak or not: `*` has all."""
    known = [each.removeprefix(WEAK) for each in _listed(if_none_match)]
    return if_none_match.strip() == "*" or tag.removeprefix(WEAK) in known


def digest(text: str) -> str:
    """Short enough for a header."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _listed(header: str) -> list[str]:
    return [each.strip() for each in header.split(",")]


@cache
def _fields_of(kind: type[BaseModel]) -> str:
    return digest(json.dumps(kind.model_json_schema(), sort_keys=True))[:8]
