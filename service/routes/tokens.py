"""Who may use the API: tokens, and the dashboard's session."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.datastructures import Headers

from api_schemas.errors import Problem
from api_schemas.tokens import NewToken, Session, Token, TokenRequest
from api_schemas.views import Page
from service import tokens
from service.access import COOKIE, presented
from service.context import ContextDep, DatabaseDep
from service.openapi import takes
from service.routes.parameters import NONE
from service.tokens import TokenQuery
from service.validation import body_of

SESSION_S = 12 * 3600
"""How long a browser keeps the cookie: a day's work."""

router = APIRouter(prefix="/v1", tags=["access"], responses={"default": {"model": Problem}})
TokenId = Annotated[str, Path(max_length=32, description="The token's `id`.")]


@router.post("/tokens", status_code=201, openapi_extra=takes(TokenRequest), dependencies=NONE)
def create(asked: Annotated[TokenRequest, Depends(body_of(TokenRequest))], database: DatabaseDep) -> NewToken:
    """Make a token. The answer is the only one that holds its secret."""
    return tokens.create(database, asked)


@router.get("/tokens")
def listing(query: Annotated[TokenQuery, Query()], database: DatabaseDep) -> Page[Token]:
    """Tokens, newest first, with those that are revoked or have expired."""
    return tokens.listing(database, query)


@router.delete("/tokens/{token_id}", dependencies=NONE)
def revoke(token_id: TokenId, database: DatabaseDep) -> Token:
    """Have a token refused, within 5 s; one that is revoked stays so. It stays in the list."""
    return tokens.revoke(database, token_id)


@router.get("/session", dependencies=NONE)
def session(request: Request, context: ContextDep) -> Session:
    """Whether the service asks for tokens, and whose came with this request."""
    return Session(auth=context.settings.auth, token=getattr(request.state, "token", None))


@router.post("/session", dependencies=NONE)
def sign_in(request: Request, context: ContextDep, response: Response) -> Session:
    """Put the token that came in `Authorization` into a cookie, which the browser sends from then on.

    No script can read it, and no page of another site has it sent.
    """
    found = session(request, context)
    text = presented(request.method, request.headers)
    if found.token is not None and text is not None:
        response.set_cookie(
            COOKIE, text, max_age=SESSION_S, httponly=True, samesite="strict", secure=_by_tls(request.headers)
        )
    return found


@router.delete("/session", status_code=204, dependencies=NONE)
def sign_out(response: Response) -> None:
    """Have the browser forget the cookie. The token stays valid."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _by_tls(headers: Headers) -> bool:
    """Whether the browser came by https, which a proxy before the service may have ended."""
    return urlsplit(headers.get("origin", "")).scheme == "https"
