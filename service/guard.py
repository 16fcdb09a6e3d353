"""What every request passes first and every answer last: who may ask, a request id, and headers for browsers.

The service has no tokens and listens on the loopback only. What is left is a browser on this machine: pages of other
sites must not reach it, neither by a name of their own that resolves to the loopback (Host) nor directly: not to
change something (Origin), and not to look either (Sec-Fetch-Site), since a look at a user's own recipe runs its code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_schemas.errors import EmascaleError, Forbidden, InternalError
from service.access import is_open
from service.problems import respond

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")
"""Sec-Fetch-Site of the dashboard, and of an address that a person typed; programs send none."""
HEADERS = {
    "Cache-Control": "no-cache",  # whoever keeps an answer asks with its ETag before it uses it
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware. `hosts` are further names that the Host header may have."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], new_request_id: Callable[[], str]) -> None:
        self.app = app
        self.hosts = {*LOCAL_NAMES, *hosts}
        self.new_request_id = new_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer in its place."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self.new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _complete(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, send_on)
        except Forbidden as error:
            await respond(error, request_id)(scope, receive, send_on)
        except ClientDisconnect:
            return  # while it sent its body: nobody is there to be told
        except Exception as error:
            _log(error, scope, request_id)
            if started:
                raise  # the server cuts the connection, so that nobody takes half an answer for a whole one
            await respond(InternalError(), request_id)(scope, receive, send_on)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _hostname(host) not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            raise Forbidden(f"The Host header must be one of {names}; this service is for its own machine alone.")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and origin.partition("://")[2] != host:
            raise Forbidden("A page of another site must not change anything here.")
        if headers.get("sec-fetch-site", "none") not in OWN_SITES and not is_open(scope["path"]):
            raise Forbidden("A page of another site must not ask for anything here; it may lead to the dashboard.")


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _complete(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-Id"] = request_id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)


def _log(error: Exception, scope: Scope, request_id: str) -> None:
    detail = error.detail if isinstance(error, EmascaleError) else str(error)
    logger.error(
        "%s %r failed: %s",
        scope["method"],
        scope["path"],
        detail,
        exc_info=error,
        extra={"action": "request_failed", "request_id": request_id},
    )
