"""Ids of jobs: short, in the order of their making, without a place that hands them out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: none is mistaken for another
_TIME, _ENTROPY = 11, 5
_ID = f"[{_DIGITS}]{{{_TIME + _ENTROPY}}}"
AFTER = "`next` of the page before; without it the first page."
NO_CURSOR = "Must be a cursor as it came from this service."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ordered_id(now: datetime, entropy: int) -> str:
    """16 characters that sort by time, to the microsecond; `entropy` (25 bits are used) tells equal times apart."""
    microseconds = (now - _EPOCH) // timedelta(microseconds=1)  # in whole numbers: a float loses the last ones
    return _base32(microseconds, _TIME) + _base32(entropy, _ENTROPY)


def _known(cursor: str) -> str:
    if not re.fullmatch(_ID, cursor):
        raise PydanticCustomError("cursor", NO_CURSOR)
    return cursor


PageCursor = Annotated[
    str,
    AfterValidator(_known),
    Field(json_schema_extra={"pattern": f"^{_ID}$"}),
]
"""The id of the last row of a page of a list, newest first, as it is asked for the next one."""


def _base32(number: int, digits: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(digits)))
