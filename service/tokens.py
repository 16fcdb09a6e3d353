"""Tokens in the database: made, listed, revoked, recognised.

The database holds a digest of each secret, never the secret. A secret is 256 random bits, which nobody finds by trying,
so one SHA-256 does where a password would need a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col, select

from api_schemas.errors import NotFound
from api_schemas.tokens import NewToken, Token, TokenRequest
from api_schemas.views import Page
from service.db import Database, lock
from service.ids import AFTER, PageCursor, time_ordered_id
from service.tables import TokenRow

PREFIX = "ema"
"""How every token begins, so that a scanner finds one that was published by mistake."""
_FORM = re.compile(rf"{PREFIX}_([0-9a-z]{{1,32}})_([0-9a-f]{{64}})")


class TokenQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200, description="Most tokens of the page.")
    after: PageCursor | None = Field(None, description=AFTER)


def create(database: Database, asked: TokenRequest) -> NewToken:
    """Make a token; its answer is the only one that ever holds the secret, 256 random bits in hexadecimal digits."""
    now = database.now()
    token_id, secret = time_ordered_id(now, secrets.randbits(25)), secrets.token_hex(32)
    row = TokenRow(
        id=token_id,
        name=asked.name,
        scope=asked.scope,
        digest=_digest(secret),
        created_at=now,
        expires_at=now + asked.expires if asked.expires else None,
    )
    with database.writing() as session:
        session.add(row)
    return NewToken(**_view(row).model_dump(), secret=f"{PREFIX}_{token_id}_{secret}")


def listing(database: Database, query: TokenQuery) -> Page[Token]:
    """A page of tokens, newest first, those that are revoked or have expired among them."""
    chosen = select(TokenRow).order_by(col(TokenRow.id).desc()).limit(query.limit + 1)
    if query.after is not None:
        chosen = chosen.where(col(TokenRow.id) < query.after)
    with database.reading() as session:
        rows = session.exec(chosen).all()
    items = [_view(row) for row in rows[: query.limit]]
    return Page(items=items, next=items[-1].id if len(rows) > query.limit else None)


def everyone(database: Database) -> Iterator[Token]:
    """All tokens, newest first."""
    page = listing(database, TokenQuery(limit=200))
    yield from page.items
    while page.next is not None:
        page = listing(database, TokenQuery(limit=200, after=page.next))
        yield from page.items


def revoke(database: Database, token_id: str) -> Token:
    """Have a token refused from now on; one that is revoked stays as it is. Raises NotFound."""
    with database.writing() as session:
        row = lock(session, TokenRow, token_id)
        if row is None:
            raise NotFound(f"There is no token {token_id!r}.")
        row.revoked_at = row.revoked_at or database.now()
        return _view(row)


def recognise(database: Database, text: str) -> Token | None:
    """The token that this is the whole of; None: there is none, or it is revoked or has expired."""
    parts = _FORM.fullmatch(text)
    if parts is None:
        return None
    with database.reading() as session:
        row = session.get(TokenRow, parts[1])
    if row is None or not hmac.compare_digest(row.digest, _digest(parts[2])):
        return None
    token = _view(row)
    return token if is_valid(token, database.now()) else None


def is_valid(token: Token, now: datetime) -> bool:
    """Whether it is good for anything at this time."""
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def condition(token: Token, now: datetime) -> str:
    """Whether it is valid, and until when, in words."""
    if token.revoked_at is not None:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    if token.expires_at is None:
        return "valid"
    return f"{'valid until' if now < token.expires_at else 'expired'} {token.expires_at:%Y-%m-%d %H:%M}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _view(row: TokenRow) -> Token:
    return Token.model_validate(row.model_dump(exclude={"digest"}))
