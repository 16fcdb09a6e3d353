"""What somebody typed: an id, the beginning of one, or neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_schemas.ids import DIGITS, LENGTH, begins_id, beyond, is_id

IDS = st.text(DIGITS, min_size=LENGTH, max_size=LENGTH)


@given(job=IDS, other=IDS, length=st.integers(1, LENGTH - 1))
def test_what_begins_so_sorts_before_what_is_beyond(job: str, other: str, length: int) -> None:
    beginning = job[:length]
    end = beyond(beginning)
    assert begins_id(beginning)
    assert end is None or (is_id(end) and not end.startswith(beginning))
    for each in (job, other, beginning.ljust(LENGTH, "z")):
        assert each.startswith(beginning) == (each >= beginning and (end is None or each < end))


@pytest.mark.parametrize("text", ["", "digits", "1K1", "1k1*", "1k114apr40046ss7"])
def test_no_id_begins_with_this(text: str) -> None:
    assert not begins_id(text)


@pytest.mark.parametrize("text", ["", "1k114apr40046ss", "1k114apr40046ss70", "1k114apr40046ssu", "1k114apr40046ss7\n"])
def test_this_is_no_id(text: str) -> None:
    assert not is_id(text)
