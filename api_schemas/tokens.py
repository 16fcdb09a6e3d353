"""Tokens: what may be done with one, how one is asked for, and what is told of it. The secret is told once."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

_LIFETIME = re.compile(r"[1-9]\d{0,4}[mhd]", re.ASCII)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Scope(StrEnum):
    """What a token is good for; each scope holds those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        """Whether it is enough for what needs the other one."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


def parse_lifetime(value: Any) -> timedelta:
    """`90d`, `12h` or `30m`. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _LIFETIME.fullmatch(value):
        raise ValueError("must be whole minutes, hours or days, such as 30m, 12h or 90d")
    return int(value[:-1]) * _UNITS[value[-1]]


def print_lifetime(lifetime: timedelta) -> str:
    """In the largest unit that leaves nothing over."""
    for unit in ("d", "h", "m"):
        if not lifetime % _UNITS[unit]:
            return f"{lifetime // _UNITS[unit]}{unit}"
    raise ValueError("must be whole minutes")


def _shown(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("must have characters that can be seen, and no others")
    return name


Lifetime = Annotated[
    timedelta,
    BeforeValidator(parse_lifetime),
    PlainSerializer(print_lifetime, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _LIFETIME.pattern, "examples": ["90d"]}),
]


class TokenRequest(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(_shown)] = Field(
        min_length=1, max_length=100, description="Whose it is, or what for."
    )
    scope: Scope
    expires: Lifetime | None = Field(None, description="After how long it is refused; null: never.")


class Token(BaseModel):
    """A token, without its secret."""

    id: str = Field(description="What it is revoked by; no secret.")
    name: str = Field(description="Whose it is, or what for.")
    scope: Scope
    created_at: datetime = Field(description="When it was made, in UTC.")
    expires_at: datetime | None = Field(description="From when on it is refused, in UTC; null: never.")
    revoked_at: datetime | None = Field(description="When it was revoked, in UTC; null: it was not.")


class NewToken(Token):
    """A token that was just made."""

    secret: str = Field(repr=False, description="What goes into `Authorization: Bearer`; it is told this once.")


class Session(BaseModel):
    """Whether the service asks for tokens, and whose came with this request."""

    auth: Literal["none", "token"] = Field(description="token: the service asks for one.")
    token: Token | None = Field(description="That of this request; null: none was asked for.")
