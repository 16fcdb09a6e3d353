"""Imports without the garbage collector."""

from __future__ import annotations

import gc

from workers.imports import uncollected


def test_what_is_made_in_it_is_not_looked_through_any_more() -> None:
    try:
        with uncollected():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]  # type: ignore[var-annotated]
        assert gc.isenabled()
        known = {id(each) for each in gc.get_objects()}
        assert not known & {id(each) for each in made}
    finally:
        gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
