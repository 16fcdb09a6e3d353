"""Who may ask for what: the scope that each address needs, where a request carries its token, and what that is worth.

Tokens are looked up in the database, and what was found holds for some seconds: a revoked one is refused no later.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope as Request

from api_schemas.errors import Forbidden, Unauthorized, Unavailable
from api_schemas.tokens import Scope, Token
from service.db import Database
from service.tokens import is_valid, recognise

OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
ASSETS = "/assets/"
SESSION = "/v1/session"
TOKENS = "/v1/tokens"
RECIPES = "/v1/recipes/"
LOOKS = ("GET", "HEAD", "OPTIONS")
ONLY_COMPUTED = frozenset({"/v1/scaling/preview"})
"""Addresses where a POST neither changes anything nor runs anybody's code."""

COOKIE = "emascale"
FRESH = timedelta(seconds=5)
"""How long a token counts as it was found."""
REMEMBERED = 10_000
"""Tokens, at most; then all are looked up anew."""


def is_open(path: str) -> bool:
    """Whether it tells nothing that is not in the source code, or is for probes; new addresses are closed."""
    return path in OPEN or path.startswith(ASSETS)


def needed(method: str, path: str) -> Scope | None:
    """What a token must be good for; None: no token is needed.

    A look at a recipe of a user's own imports it, so it needs the right to run code.
    """
    if is_open(path) or (path == SESSION and method == "DELETE"):
        return None
    if path == TOKENS or path.startswith(f"{TOKENS}/"):
        return Scope.ADMIN
    if path == SESSION or path in ONLY_COMPUTED:
        return Scope.READ
    runs_code = path.startswith(RECIPES) and ":" in path
    return Scope.READ if method in LOOKS and not runs_code else Scope.SUBMIT


def presented(method: str, headers: Headers) -> str | None:
    """The token that comes with a request: by itself, or in the cookie of the dashboard.

    A cookie is sent by the browser whatever page asks, so it counts for a change only where the browser says which
    page that is; `Guard` has compared it.
    """
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":  # another may be for a proxy on the way
        return text.strip()
    if method not in LOOKS and "origin" not in headers:
        return None
    return cookie_parser(headers.get("cookie", "")).get(COOKIE)


class Access:
    """What tokens are worth."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[datetime, Token]] = {}  # by a digest, so that the memory holds no secrets

    @property
    def remembered(self) -> int:
        """How many tokens it would not look up."""
        return len(self._known)

    async def admit(self, request: Request) -> str | None:
        """The token that the request came in with, for `holds`; None: it needs none.

        Raises Unauthorized, the same whatever is wrong with the token; Forbidden, Unavailable.
        """
        scope = needed(request["method"], request["path"])
        if scope is None:
            return None
        text = presented(request["method"], Headers(scope=request))
        token = await self._token(text) if text else None
        if text is None or token is None:
            raise Unauthorized
        if not token.scope.covers(scope):
            raise Forbidden(f"This needs a token of scope {scope}; yours has scope {token.scope}.")
        request["state"]["token"] = token
        return text

    async def holds(self, text: str) -> bool:
        """Whether a token that was admitted still is; while the database is away, yes."""
        try:
            return await self._token(text) is not None
        except Unavailable:
            return True

    async def _token(self, text: str) -> Token | None:
        now = self._database.now()
        key = hashlib.sha256(text.encode()).digest()
        at, token = self._known.get(key, (None, None))
        if at is None or not at <= now < at + FRESH:  # earlier than it was found: the clock was set back
            token = await run_sync(recognise, self._database, text)
            self._remember(key, now, token)
        return token if token is not None and is_valid(token, now) else None

    def _remember(self, key: bytes, now: datetime, token: Token | None) -> None:
        """Those that are valid: others would fill the memory with whatever strangers send."""
        self._known.pop(key, None)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        if token is not None:
            self._known[key] = (now, token)
