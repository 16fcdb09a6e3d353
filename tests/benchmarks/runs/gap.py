"""How far one training's EMA weights are from another's, in units of the distance between two orders of the data."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Path = Mapping[int, Tensor]
"""EMA weights by samples."""


def gap(run: Path, base: Path, other_order: Path) -> float:
    """Mean |run - base| over the mean |other_order - base|, both at the samples that all three were looked at.

    1: as far as another order of the data leads. Derived for this project.
    """
    here, there = distances(run, base), distances(other_order, base)
    samples = here.keys() & there.keys()
    return sum(here[at] for at in samples) / sum(there[at] for at in samples)


def distances(one: Path, two: Path) -> dict[int, float]:
    """Between the weights of two runs, by samples, where both were looked at."""
    return {at: float((one[at] - two[at]).norm()) for at in sorted(one.keys() & two.keys())}
