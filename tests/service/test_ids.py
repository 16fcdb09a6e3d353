"""Ids of jobs sort as the jobs came."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.app import create_app
from service.ids import time_ordered_id
from tests.service.world import START, World

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC))
ENTROPY = st.integers(0, 2**25 - 1)


@given(earlier=TIMES, microseconds=st.integers(1, 10**12), first=ENTROPY, second=ENTROPY)
def test_a_later_id_sorts_behind(earlier: datetime, microseconds: int, first: int, second: int) -> None:
    later = earlier + timedelta(microseconds=microseconds)
    assert time_ordered_id(earlier, first) < time_ordered_id(later, second)


@given(now=TIMES, entropy=ENTROPY)
def test_an_id_is_sixteen_letters_that_no_reader_mistakes(now: datetime, entropy: int) -> None:
    assert re.fullmatch("[0-9a-hjkmnp-tv-z]{16}", time_ordered_id(now, entropy))


@given(first=ENTROPY, second=ENTROPY)
def test_of_the_same_moment_entropy_tells_them_apart(first: int, second: int) -> None:
    assert (time_ordered_id(START, first) == time_ordered_id(START, second)) == (first == second)


def test_jobs_are_given_such_ids(world: World) -> None:
    new_id = create_app(world.settings, world.database).state.context.new_job_id
    first = new_id()
    world.clock.move(1e-6)
    assert first < new_id()
