"""Every failure as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api_schemas.complaints import sentence
from api_schemas.errors import PROBLEM_MEDIA_TYPE, EmascaleError, FieldError, NotFound, Problem
from service.validation import NO_PARAMETER, invalid, pointer

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def install(app: FastAPI) -> None:
    """Answer with a problem, whatever goes wrong in a handler; `Guard` does for the rest."""
    app.add_exception_handler(EmascaleError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def respond(error: EmascaleError, request_id: str) -> Response:
    """The error as an answer."""
    response = _answer(error.problem(HTTPStatus(error.status).phrase), request_id)
    response.headers.update(error.headers)
    return response


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EmascaleError)
    return respond(error, request.state.request_id)


def _on_invalid(request: Request, error: Exception) -> Response:
    """Parameters of the path, the query and the headers; bodies are read by `validation.body_of`."""
    assert isinstance(error, RequestValidationError)
    found = [FieldError(pointer=_parameter(each["loc"]), message=_message(each)) for each in error.errors()]
    return respond(invalid(found), request.state.request_id)


def _on_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an unknown address, or a method that an address does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code == NotFound.status:
        return respond(NotFound(f"There is nothing at {request.url.path}."), request.state.request_id)
    phrase, headers = HTTPStatus(error.status_code).phrase, dict(error.headers or {})
    code = phrase.lower().replace(" ", "_")
    detail = f"{request.method} {request.url.path}: {error.detail}."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names those of one route alone
        headers["Allow"] = ", ".join(method for method in METHODS if _is_answered(request, method))
        detail = f"There is no {request.method} {request.url.path}; allowed there: {headers['Allow']}."
    problem = Problem(title=phrase, status=error.status_code, code=code, detail=detail)
    response = _answer(problem, request.state.request_id)
    response.headers.update(headers)
    return response


def _is_answered(request: Request, method: str) -> bool:
    """Whether the address has this method."""
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _message(error: ErrorDetails) -> str:
    return NO_PARAMETER if error["type"] == "extra_forbidden" else sentence(error)


def _parameter(location: tuple[int | str, ...]) -> str:
    """`?limit` for a query parameter, `Idempotency-Key` for a header; a pointer for the others."""
    place, *steps = location
    prefixes = {"query": "?", "header": ""}
    return f"{prefixes[str(place)]}{steps[0]}" if place in prefixes and steps else pointer(steps)


def _answer(problem: Problem, request_id: str) -> Response:
    body = problem.model_copy(update={"request_id": request_id}).model_dump_json(exclude_none=True)
    return Response(body, status_code=problem.status, media_type=PROBLEM_MEDIA_TYPE)
