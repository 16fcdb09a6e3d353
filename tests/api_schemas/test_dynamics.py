"""What the spec alone says of a job's sizes."""

from __future__ import annotations

from typing import Any

import pytest

from api_schemas.dynamics import most_workers
from api_schemas.jobs import JobSpec


def spec(**changes: Any) -> JobSpec:
    made: dict[str, Any] = {
        "name": "any",
        "recipe": {"name": "any"},
        "optimizer": {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.99]},
        "schedule": {"budget": "1 epochs"},
        "batch": {"base": 64, "per_worker": 64},
        "elasticity": {"workers": [1, 40]},
    }
    return JobSpec.model_validate(made | changes)


PUBLISHED = {"rule": "published"}


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 40),
        ({"scaling": PUBLISHED}, 10),  # beta1 = 0.9 is used up at kappa 10
        ({"scaling": PUBLISHED, "elasticity": {"workers": [3, 8]}}, 8),
        ({"scaling": PUBLISHED, "elasticity": {"workers": [2, 40], "kappa": [1, 4]}}, 40),  # the batch stays within
        ({"scaling": PUBLISHED, "elasticity": {"workers": [1, 40], "mode": "hold"}}, 40),
        ({"scaling": PUBLISHED, "elasticity": {"workers": [20, 40]}}, 20),
        ({"optimizer": {"name": "radam", "lr": 1e-3, "betas": [0.9, 0.98]}}, 20),  # 0.98^20 is above 2/3, 0.98^21 below
    ],
)
def test_a_job_grows_no_further_than_the_rules_reach(changes: dict[str, Any], most: int) -> None:
    assert most_workers(spec(**changes)) == most
