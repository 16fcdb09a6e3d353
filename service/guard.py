"""What every request passes first and every answer last: who may ask, a request id, and headers for browsers.

Without tokens the service listens on the loopback only. What is left is a browser on this machine: pages of other
sites must not reach it, neither by a name of their own that resolves to the loopback (Host) nor directly: not to
change something (Origin), and not to look either (Sec-Fetch-Site), since a look at a user's own recipe runs its code.
With tokens `Access` decides; the rest stays, since a browser sends the dashboard's cookie whatever page asks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_schemas.errors import EmascaleError, Forbidden, InternalError, Unauthorized, Unavailable
from service.access import LOOKS, Access, is_open
from service.problems import respond

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
OTHER_NAMES = (
    "For another name: name it in EMASCALE_ALLOWED_HOSTS where the service is started, which takes EMASCALE_AUTH=token."
)
OWN_SITES = ("same-origin", "none")
"""Sec-Fetch-Site of the dashboard, and of an address that a person typed; programs send none."""
HEADERS = {
    "Cache-Control": "no-cache",  # whoever keeps an answer asks with its ETag before it uses it
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware. `hosts` are the names that the Host header may have, None: any; without `access` all may ask.

    `answered` is told of each answer when it begins: its request, its status, and the seconds that it took.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] | None,
        access: Access | None,
        answered: Callable[[Scope, int, float], None],
        new_request_id: Callable[[], str],
    ) -> None:
        self.app = app
        self.answered = answered
        self.hosts = hosts
        self.access = access
        self.new_request_id = new_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer in its place."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self.new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(scope, send, request_id, self.answered)
        try:
            self._check(scope)
            if self.access is not None:
                answer.watch(self.access, await self.access.admit(scope))
            await self.app(scope, receive, answer.send)
        except (Forbidden, Unauthorized, Unavailable) as error:
            if not answer.cut:
                await respond(error, request_id)(scope, receive, answer.send)
        except ClientDisconnect:
            return  # while it sent its body: nobody is there to be told
        except Exception as error:
            if answer.cut:
                return
            _log(error, scope, request_id)
            if answer.started:
                raise  # the server cuts the connection, so that nobody takes half an answer for a whole one
            await respond(InternalError(), request_id)(scope, receive, answer.send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _hostname(host) not in self.hosts:
            raise Forbidden(f"The Host header must be one of {', '.join(sorted(self.hosts))}. {OTHER_NAMES}")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in LOOKS and origin.partition("://")[2] != host:
            raise Forbidden("A page of another site must not change anything here.")
        if headers.get("sec-fetch-site", "none") not in OWN_SITES and not is_open(scope["path"]):
            raise Forbidden("A page of another site must not ask for anything here; it may lead to the dashboard.")


class _Answer:
    """What goes back to one client, as long as its token holds."""

    def __init__(
        self, scope: Scope, send: Send, request_id: str, answered: Callable[[Scope, int, float], None]
    ) -> None:
        self.started = False
        self._scope = scope
        self._answered = answered
        self._since = time.perf_counter()
        self.cut = False  # in the middle: the server then closes the connection
        self._send = send
        self._request_id = request_id
        self._access: Access | None = None
        self._token: str | None = None

    def watch(self, access: Access, token: str | None) -> None:
        """Send no more than what the token is good for."""
        self._access, self._token = access, token

    async def send(self, message: Message) -> None:
        """Pass a message on. Raises Unauthorized in the middle of an answer whose token is not valid any more."""
        if message["type"] == "http.response.start":
            self.started = True
            _complete(message, self._request_id)
            self._note(message["status"])
        elif message.get("more_body") and self._access and self._token:
            self.cut = not await self._access.holds(self._token)
        if self.cut:
            what = {"action": "answer_cut", "request_id": self._request_id}
            logger.info("a token is not valid any more, and so its answer ends here", extra=what)
            raise Unauthorized
        await self._send(message)

    def _note(self, status: int) -> None:
        """Measure every request; log those that change something, and those that are refused or fail."""
        seconds = time.perf_counter() - self._since
        self._answered(self._scope, status, seconds)
        method = self._scope["method"]
        if method in LOOKS and status < HTTPStatus.BAD_REQUEST:
            return
        level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        about = {"action": "request", "request_id": self._request_id, "seconds": round(seconds, 4)}
        if job := self._job():
            about["job"] = quote(job)
        logger.log(level, "%s %s: %d", method, quote(self._scope["path"], safe="/:"), status, extra=about)

    def _job(self) -> str | None:
        """The job that the address names, or the one that the handler made."""
        named: str | None = self._scope.get("path_params", {}).get("job_id")
        return named or self._scope["state"].get("job")


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _complete(message: Message, request_id: str) -> None:
    """Add the headers that the answer has not set itself."""
    headers = list(message.get("headers", ()))
    there = {name for name, _ in headers}
    headers.append((b"x-request-id", request_id.encode()))
    message["headers"] = headers + [header for header in RAW_HEADERS if header[0] not in there]


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
