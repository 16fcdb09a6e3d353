"""Everything that can go wrong, as one tree: the server raises it, the client raises it again.

    EmascaleError
    ├── MalformedBody         400  the body is not JSON or YAML
    ├── InvalidRequest        422  a field is wrong; `errors` names each one and what is allowed
    │   ├── ScalingError      422  no scaling rule covers what was asked
    │   └── UnknownRecipe     422  no recipe of that name in the catalogue
    ├── NotFound              404
    ├── Conflict              409  the job's status does not allow it
    ├── PreconditionFailed    412  it is not, or not any more, what `If-Match` names
    ├── PayloadTooLarge       413
    ├── UnsupportedMediaType  415  the body is of a kind that the service does not read
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── TooManyRequests       429
    ├── Unavailable           503  the service is up, something that it needs is not
    ├── ServiceUnreachable         client side: no answer at all
    └── InternalError         500

On the wire each is an RFC 9457 problem (`Problem`), whose `code` is stable: `from_problem` rebuilds
the class that was raised, so that a caller catches the same exception on both ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One thing that is wrong with a request, and where."""

    model_config = ConfigDict(frozen=True)

    pointer: str = Field(
        description="JSON pointer into the body, such as `/batch/base`; `?limit` for a parameter, a header by its name."
    )
    message: str = Field(description="What is allowed there, as a sentence.")


class Problem(BaseModel):
    """RFC 9457 problem details: the body of every answer that is not a success."""

    type: str = Field("about:blank", description="Always this: `code` says what it is.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable, for programs.")
    detail: str = Field(description="A sentence that a person can act on.")
    errors: list[FieldError] = Field([], description="Each thing that is wrong; at most 50.")
    request_id: str | None = Field(None, description="Names the request in the service's log.")


class EmascaleError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    asks: ClassVar[Mapping[str, str]] = {}
    """Headers that every answer of this kind has."""

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
    ) -> None:
        self.detail = detail or (type(self).__doc__ or "").partition("\n")[0]
        self.reason = code or type(self).code
        self.errors = list(errors)
        self.request_id = request_id
        self.headers = {**self.asks}  # of the answer
        super().__init__(self.detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.detail, self.reason, self.errors, self.request_id)

    def problem(self, title: str) -> Problem:
        """The wire form; `title` is the HTTP status in words."""
        return Problem(
            title=title,
            status=self.status,
            code=self.reason,
            detail=self.detail,
            errors=self.errors,
            request_id=self.request_id,
        )


class InvalidRequest(EmascaleError):
    """The request has a field that is not allowed."""

    code = "invalid_request"
    status = 422


class MalformedBody(EmascaleError):
    """The body cannot be read."""

    code = "malformed_json"  # or malformed_yaml
    status = 400


class ScalingError(InvalidRequest):
    """No scaling rule covers this. `reason` is one of the error codes of the scaling rules."""

    code = "scaling_error"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail, code=reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.detail)


class UnknownRecipe(InvalidRequest):
    """There is no recipe of that name."""

    code = "unknown_recipe"


class NotFound(EmascaleError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class Conflict(EmascaleError):
    """The job's status does not allow this."""

    code = "conflict"
    status = 409


class PreconditionFailed(EmascaleError):
    """It is not, or not any more, what `If-Match` names."""

    code = "precondition_failed"
    status = 412


class PayloadTooLarge(EmascaleError):
    """The body is larger than the service takes."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(EmascaleError):
    """The body is of a kind that the service does not read."""

    code = "unsupported_media_type"
    status = 415
    asks: ClassVar[Mapping[str, str]] = {"Accept": "application/json, application/yaml"}


class Unauthorized(EmascaleError):
    """A valid token is needed, as `Authorization: Bearer ema_...`; who runs the service makes one."""

    code = "unauthorized"
    status = 401
    asks: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(EmascaleError):
    """This is not allowed from here."""

    code = "forbidden"
    status = 403


class TooManyRequests(EmascaleError):
    """Too many requests; try again later."""

    code = "too_many_requests"
    status = 429


class Unavailable(EmascaleError):
    """The service is up, but something that it needs is not."""

    code = "unavailable"
    status = 503


class ServiceUnreachable(EmascaleError):
    """The service does not answer."""

    code = "service_unreachable"
    status = 0  # there was no answer to have one


class InternalError(EmascaleError):
    """The service failed; its log has the details under this request id."""

    code = "internal_error"


def _rebuild(
    kind: type[EmascaleError], detail: str, code: str, errors: list[FieldError], request_id: str | None
) -> EmascaleError:
    return kind(detail, code=code, errors=errors, request_id=request_id)


def _tree(root: type[EmascaleError]) -> Iterator[type[EmascaleError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def from_problem(problem: Problem) -> EmascaleError:
    """The exception that the server raised; a code of a newer server falls back on the status and its hundred."""
    kinds = [kind for kind in _tree(EmascaleError) if kind is not EmascaleError and kind is not ScalingError]
    by_code = [kind for kind in kinds if kind.code == problem.code]
    by_status = [kind for kind in kinds if kind.status == problem.status]
    kind = (by_code or by_status or [InternalError if problem.status >= 500 else InvalidRequest])[0]
    return _rebuild(kind, problem.detail, problem.code, problem.errors, problem.request_id)
