"""Lengths of training, in units that a change of batch size cannot move."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Unit = Literal["epochs", "samples", "base_steps"]

LONGEST: dict[Unit, int] = {"epochs": 10**6, "samples": 10**15, "base_steps": 10**9}
"""The largest count of each unit: in samples it stays below 2**63, whatever the batch, for data sets of up to 9e12."""

_FORM = re.compile(r"(?P<count>\d+(\.\d+)?([eE][+-]?\d+)?)\s+(?P<unit>[a-z_]+)")


@dataclass(frozen=True)
class Length:
    """`count` epochs, samples or base steps. Never raw steps: their number depends on the hardware."""

    count: float
    unit: Unit

    def __str__(self) -> str:
        """What `parse_length` reads as the same length: every digit, without an exponent."""
        digits = f"{Decimal(repr(self.count)):f}"
        return f"{digits.removesuffix('.0')} {self.unit}"

    def samples(self, *, epoch_size: int, base_batch: int) -> int:
        """In samples, for a data set of `epoch_size` samples and a base batch of `base_batch` samples."""
        scale = {"epochs": epoch_size, "samples": 1, "base_steps": base_batch}[self.unit]
        return round(self.count * scale)


def parse_length(text: Any) -> Length:
    """`"50 epochs"` -> Length. Raises ValueError that says what is allowed."""
    if isinstance(text, Length):
        return text
    match = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match["unit"] not in get_args(Unit):
        raise ValueError("must read '<number> epochs', '<number> samples' or '<number> base_steps'")
    unit = cast(Unit, match["unit"])
    if float(match["count"]) > LONGEST[unit]:
        raise ValueError(f"must be at most {LONGEST[unit]} {unit}")
    return Length(float(match["count"]), unit)


def _positive(text: Any) -> Length:
    length = parse_length(text)
    if length.count <= 0:
        raise ValueError("must be longer than 0")
    return length


def length_schema(*units: Unit) -> WithJsonSchema:
    """The JSON schema of a length in one of these units; its pattern is one of JavaScript's too, which knows no ?P<."""
    pattern = rf"^\s*\d+(\.\d+)?([eE][+-]?\d+)?\s+({'|'.join(units)})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": ["50 epochs", "100000 samples"]})


_ANY_UNIT = length_schema(*get_args(Unit))

Duration = Annotated[Length, BeforeValidator(parse_length), PlainSerializer(str), _ANY_UNIT]
PositiveDuration = Annotated[Length, BeforeValidator(_positive), PlainSerializer(str), _ANY_UNIT]


_SECONDS = re.compile(r"(?P<count>\d+(\.\d*)?)\s*s")


def parse_seconds(text: Any) -> float:
    """`"60s"` -> 60.0. Raises ValueError that says what is allowed."""
    if isinstance(text, float | int) and not isinstance(text, bool):
        return float(text)
    match = _SECONDS.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must read '<number>s', as in '60s'")
    return float(match["count"])


def _print_seconds(seconds: float) -> str:
    return f"{seconds!r}s".replace(".0s", "s")


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    PlainSerializer(_print_seconds),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d*)?\s*s\s*$", "examples": ["60s"]}),
]
