"""Imports without the garbage collector, and what is set by them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("module", ["workers.rank", "workers.train_run"])
def test_whoever_trains_has_large_tensors_in_huge_pages(module: str) -> None:
    """torch looks once, at its first tensor; without it nothing fails, and a step costs a quarter more."""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    code = f"import os, {module}; print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1"], done.stderr
