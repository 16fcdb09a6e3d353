"""Lengths of training: what they read and write, and where they end."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api_schemas.durations import LONGEST, Duration, Length, Unit, parse_length
from api_schemas.jobs import BatchSpec, JobSpec

MINIMAL = {
    "name": "any",
    "recipe": {"name": "any"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"budget": "1 epochs"},
    "batch": {"base": 64, "per_worker": 64},
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("50 epochs", "50 epochs"),
        ("12.3456789 epochs", "12.3456789 epochs"),
        ("1234567.5 samples", "1234567.5 samples"),
        ("1e6 samples", "1000000 samples"),
        ("2.5e-7 epochs", "0.00000025 epochs"),
        ("999999999999999 samples", "999999999999999 samples"),
        ("0 samples", "0 samples"),
    ],
)
def test_no_digit_is_lost(text: str, shown: str) -> None:
    assert str(parse_length(text)) == shown
    assert parse_length(shown) == parse_length(text)


@given(st.floats(0, 1e6), st.sampled_from(sorted(LONGEST)))
def test_every_length_can_be_read_back(count: float, unit: Unit) -> None:
    assert parse_length(str(Length(count, unit))) == Length(count, unit)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("5 epochs", True), (" 1.5e3  base_steps ", True), ("5", False), ("5 steps", False), ("a 5 epochs b", False)],
)
def test_the_schema_takes_what_is_read(text: str, fits: bool) -> None:
    pattern = TypeAdapter(Duration).json_schema()["pattern"]
    assert "?P<" not in pattern, "JavaScript has no such group"
    assert bool(re.search(pattern, text)) == fits
    with nullcontext() if fits else pytest.raises(ValueError, match="must read"):
        parse_length(text)


@pytest.mark.parametrize("unit", sorted(LONGEST))
def test_a_length_without_end_is_refused_in_a_sentence(unit: Unit) -> None:
    assert parse_length(f"{LONGEST[unit]} {unit}").count == LONGEST[unit]
    for count in (f"{LONGEST[unit] + 1}", "1e308", "1e400"):
        with pytest.raises(ValueError, match=f"^must be at most {LONGEST[unit]} {unit}$"):
            parse_length(f"{count} {unit}")


def test_the_longest_of_all_can_be_counted_in_samples() -> None:
    (most,) = (limit.le for limit in BatchSpec.model_fields["base"].metadata if hasattr(limit, "le"))

    for unit, count in LONGEST.items():
        assert Length(count, unit).samples(epoch_size=9 * 10**12, base_batch=most) < 2**63


def test_a_stall_timeout_is_written_in_seconds() -> None:
    job = JobSpec.model_validate(MINIMAL | {"stall_timeout": "90s"})
    assert job.stall_timeout == 90
    assert job.model_dump(mode="json")["stall_timeout"] == "90s"
    assert JobSpec.model_validate(job.model_dump(mode="json")) == job
    for wrong in ("9s", "90", "2 epochs", True, "infs"):
        with pytest.raises(ValidationError, match=r"stall_timeout\n.*(10|<number>s)"):
            JobSpec.model_validate(MINIMAL | {"stall_timeout": wrong})
