"""Ids of jobs: short, in the order of their making, without a place that hands them out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from api_schemas.ids import DIGITS, LENGTH, PATTERN, is_id

_ENTROPY = 5
"""Digits at the end; those before are the time."""
AFTER = "`next` of the page before; without it the first page."
NO_CURSOR = "Must be a cursor as it came from this service."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ordered_id(now: datetime, entropy: int) -> str:
    """16 characters that sort by time, to the microsecond; `entropy` (25 bits are used) tells equal times apart."""
    microseconds = (now - _EPOCH) // timedelta(microseconds=1)  # in whole numbers: a float loses the last ones
    return _base32(microseconds, LENGTH - _ENTROPY) + _base32(entropy, _ENTROPY)


def _known(cursor: str) -> str:
    if not is_id(cursor):
        raise PydanticCustomError("cursor", NO_CURSOR)
    return cursor


PageCursor = Annotated[
    str,
    AfterValidator(_known),
    Field(json_schema_extra={"pattern": f"^{PATTERN}$"}),
]
"""The id of the last row of a page of a list, newest first, as it is asked for the next one."""


def _base32(number: int, digits: int) -> str:
    return "".join(DIGITS[number >> 5 * place & 31] for place in reversed(range(digits)))
