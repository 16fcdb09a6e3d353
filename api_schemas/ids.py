"""How the ids of jobs look: what somebody typed may be one, the beginning of one, or a name. Pure."""

from __future__ import annotations

import re

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's: none is mistaken for another. They sort as they stand here."""
LENGTH = 16
PATTERN = f"[{DIGITS}]{{{LENGTH}}}"


def is_id(text: str) -> bool:
    """A job may have this id."""
    return re.fullmatch(PATTERN, text) is not None


def begins_id(text: str) -> bool:
    """A job may have an id that goes on after this."""
    return 0 < len(text) < LENGTH and set(text) <= set(DIGITS)


def beyond(beginning: str) -> str | None:
    """The first id that sorts behind all that begin so; None: there is none."""
    head = beginning.rstrip(DIGITS[-1])
    return (head[:-1] + DIGITS[DIGITS.index(head[-1]) + 1]).ljust(LENGTH, DIGITS[0]) if head else None
