"""Query parameters that several routes share."""

from __future__ import annotations

from fastapi import Depends, Request

from api_schemas.errors import FieldError
from service.validation import NO_PARAMETER, invalid


async def _none(request: Request) -> None:
    if request.query_params:
        raise invalid([FieldError(pointer=f"?{name}", message=NO_PARAMETER) for name in request.query_params])


NONE = [Depends(_none)]
"""`dependencies` of a route without parameters: whoever adds `?dry_run=true` to it must not be misunderstood."""
