"""One HTTP connection to the service: repeats what is safe to repeat, turns every failure into its exception."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from api_schemas.complaints import misfit
from api_schemas.errors import (
    EmascaleError,
    InternalError,
    InvalidRequest,
    Problem,
    ServiceUnreachable,
    Unauthorized,
    from_problem,
)

NO_TOKEN = "The service asks for a token: set EMASCALE_TOKEN to the one that you were given."
REFUSED = "The service refuses the token (EMASCALE_TOKEN): it may have expired or been revoked. Ask for another one."
WAITS = (0.1, 0.4, 1.6)
"""Seconds before each repetition of a request that found no connection."""

T = TypeVar("T")


class Connection:
    """Requests to one address. Every answer that is not a success raises a class of `api_schemas.errors`."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        waits: Sequence[float] = WAITS,
    ) -> None:
        """`transport` takes the place of the network; `sleep` and `waits` pace the repetitions."""
        self.address = _checked(address)
        self.sleep = sleep
        self.waits = tuple(waits)
        headers = {"Authorization": f"Bearer {_sendable(token)}"} if token else {}
        self._http = httpx.Client(base_url=self.address, headers=headers, timeout=timeout_s, transport=transport)

    def close(self) -> None:
        """End the connection; it cannot be used afterwards."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> httpx.Response:
        """One answer. A GET that finds no connection is repeated; anything else is sent once."""
        request = self._http.build_request(method, path, params=_given(params), headers=headers, json=json)
        for wait in self.waits if method == "GET" else ():
            try:
                return _success(self._http.send(request))
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                self.sleep(wait)
        try:
            return _success(self._http.send(request))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer that is read while it arrives; `silence_s` is how long it may pause, None for ever."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=silence_s)
        try:
            with self._http.stream("GET", path, params=_given(params), headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                yield _success(response)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ServiceUnreachable:
        reason = str(error) or type(error).__name__
        return ServiceUnreachable(
            f"No answer from {self.address} ({reason}). "
            "Start the service with ./run serve, or name its address with --url or EMASCALE_URL."
        )


def parse(response: httpx.Response, kind: type[T] | TypeAdapter[T]) -> T:
    """The body as a model. Raises InternalError where it is something else."""
    adapter: TypeAdapter[T] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        raise InternalError(_unknown(response, error)) from error


def _unknown(response: httpx.Response, error: ValidationError) -> str:
    asked = f"{response.request.method} {response.url.path}"
    if what := misfit(error):
        return f"{asked} answered {what}: it may be older than the service at {_origin(response.url)}."
    return (
        f"{response.url} answered {response.status_code} with something that this client does not know. "
        "Is it the address of an emascale service, and is this client as new as the service?"
    )


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _checked(address: str) -> str:
    try:
        url = httpx.URL(address)
        known = url.scheme in ("http", "https") and url.host != ""
    except httpx.InvalidURL:
        known = False
    if not known:
        raise InvalidRequest(f"{address!r} is not the address of a service: it must read http://host:port.")
    return address.rstrip("/")


def _sendable(token: str) -> str:
    """Checked here: the HTTP library would show it in its complaint."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidRequest(
            "The token has characters that no token has; it must read ema_... without anything around it."
        )
    return token


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (params or {}).items() if value is not None}


def _success(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise _failure(response)
    return response


def _failure(response: httpx.Response) -> EmascaleError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        reason = f"{response.status_code} {response.reason_phrase}"
        detail = f"{response.url} answered {reason}, and not as an emascale service does."
        problem = Problem(title=response.reason_phrase, status=response.status_code, code="unknown", detail=detail)
    if problem.code == Unauthorized.code:
        problem.detail = REFUSED if "Authorization" in response.request.headers else NO_TOKEN
    return from_problem(problem)
