"""Whether a header names an answer: weakly for who polls, strongly for who changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_schemas.views import JobRow
from service import etags

TAGS = st.integers(0).map(etags.of_job)


@pytest.mark.parametrize(
    ("header", "matches", "is_known"),
    [
        ('"1"', True, True),
        ('"0", "1"', True, True),
        ('"0","1" ', True, True),
        (" *", True, True),
        ('W/"1"', False, True),
        ('"11"', False, False),
        ("1", False, False),
        ("", False, False),
    ],
)
def test_of_a_strong_one(header: str, matches: bool, is_known: bool) -> None:
    assert (etags.matches(header, '"1"'), etags.is_known(header, '"1"')) == (matches, is_known)


def test_a_weak_one_is_known_as_it_is_and_as_a_strong_one() -> None:
    tag = etags.of_text("a page", JobRow)
    assert etags.is_known(tag, tag)
    assert etags.is_known(tag.removeprefix("W/"), tag)
    assert not etags.is_known(etags.of_text("another", JobRow), tag)


@given(st.lists(TAGS), TAGS)
def test_a_list_has_what_is_in_it(listed: list[str], tag: str) -> None:
    header = ", ".join(listed)
    assert etags.matches(header, tag) == etags.is_known(header, tag) == (tag in listed)
