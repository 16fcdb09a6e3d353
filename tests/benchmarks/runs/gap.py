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
    samples = sorted(run.keys() & base.keys() & other_order.keys())
    return _distance(run, base, samples) / _distance(other_order, base, samples)


def _distance(one: Path, two: Path, samples: list[int]) -> float:
    return sum(float((one[at] - two[at]).norm()) for at in samples) / len(samples)
