"""How large kappa may be: by plan, and by the noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api_schemas.ceiling import STRIDE, Ceiling, by_noise, ceiling, planned
from api_schemas.dynamics import Horizon
from api_schemas.jobs import JobSpec

HORIZON = Horizon(epoch_size=1000, total_samples=100_000, warmup_samples=0)


def spec(**elasticity: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "any",
            "recipe": {"name": "any"},
            "optimizer": {"name": "sgd", "lr": 0.1},
            "schedule": {"budget": "100 epochs"},
            "batch": {"base": 100, "per_worker": 100},
            "elasticity": {"workers": [1, 8], **elasticity},
        }
    )


STAGES = [{"after": "0 epochs", "kappa": 1}, {"after": "10 epochs", "kappa": 2}, {"after": "20000 samples", "kappa": 6}]


@pytest.mark.parametrize(("samples", "kappa"), [(0, 1), (9_999, 1), (10_000, 2), (19_999, 2), (20_000, 6), (10**9, 6)])
def test_a_plan_goes_by_samples_in_whatever_unit(samples: int, kappa: float) -> None:
    for stages in (STAGES, STAGES[::-1]):
        assert planned(spec(progressive=stages), HORIZON, samples).kappa == kappa


def test_without_a_plan_or_before_its_first_stage_there_is_no_ceiling() -> None:
    assert planned(spec(), HORIZON, 5).kappa == math.inf
    assert planned(spec(progressive=[{"after": "1 epochs", "kappa": 2}]), HORIZON, 999).kappa == math.inf


def test_a_stage_says_why() -> None:
    assert planned(spec(progressive=STAGES), HORIZON, 10_000).reason == "From 10 epochs on kappa may be 2."


def test_a_stage_below_the_smallest_kappa_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"kappa 1 of a stage is below the smallest kappa \(2\)"):
        spec(kappa=[2, 8], progressive=[{"after": "0 epochs", "kappa": 1}])


def test_the_noise_counts_in_the_mode_auto_alone() -> None:
    assert by_noise(spec(), 50, Ceiling()).kappa == math.inf
    assert by_noise(spec(mode="auto", margin=2), 300, Ceiling()).kappa == 6


def test_before_it_is_measured_the_batch_stays_at_the_base() -> None:
    found = by_noise(spec(mode="auto"), None, Ceiling())
    assert (found.kappa, found.cause) == (1, "noise")
    assert "not measured yet" in found.reason


def test_a_gradient_of_noise_alone_sets_no_limit() -> None:
    assert by_noise(spec(mode="auto"), math.inf, Ceiling(kappa=1.0, cause="noise")).kappa == math.inf


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=50))
def test_an_estimate_that_trembles_moves_nothing(trembles: list[float]) -> None:
    held = by_noise(spec(mode="auto"), 400, Ceiling())
    for each in trembles:
        assert by_noise(spec(mode="auto"), 400 * each, held) == held


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=30))
def test_it_is_never_far_from_what_was_measured_and_moves_by_a_stride(batches: list[float]) -> None:
    held = Ceiling()
    for batch in batches:
        fresh = by_noise(spec(mode="auto"), batch, held)
        assert batch / 100 / STRIDE <= fresh.kappa * 1.0000001
        assert fresh.kappa <= batch / 100 * STRIDE * 1.0000001
        if held.cause and fresh != held:
            assert max(fresh.kappa / held.kappa, held.kappa / fresh.kappa) >= STRIDE * 0.9999999
        held = fresh


def test_the_lower_of_both_is_in_force_and_says_so() -> None:
    made = spec(mode="auto", progressive=STAGES)
    assert ceiling(made, HORIZON, 0, Ceiling(kappa=3.0, cause="noise")).cause == "progressive"
    assert ceiling(made, HORIZON, 20_000, Ceiling(kappa=3.0, cause="noise")).cause == "noise"
