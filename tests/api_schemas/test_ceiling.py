"""How large kappa may be: by plan, and by the noise."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api_schemas.ceiling import LARGEST, READINGS, STRIDE, UNMEASURED, Ceiling, by_noise, ceiling, planned
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


AUTO = spec(mode="auto")
STAGES = [{"until": "10 epochs", "kappa_max": 1}, {"until": "20000 samples", "kappa_max": 2}]


@pytest.mark.parametrize(
    ("samples", "kappa"), [(0, 1), (9_999, 1), (10_000, 2), (19_999, 2), (20_000, math.inf), (10**9, math.inf)]
)
def test_a_plan_goes_by_samples_in_whatever_unit(samples: int, kappa: float) -> None:
    for stages in (STAGES, STAGES[::-1]):
        assert planned(spec(progressive=stages), HORIZON, samples).kappa == kappa


def test_without_a_plan_there_is_no_ceiling() -> None:
    assert planned(spec(), HORIZON, 5) == Ceiling()


def test_a_stage_says_why() -> None:
    made = spec(progressive=STAGES)
    assert planned(made, HORIZON, 10_000).reason == "Until 20000 samples kappa may be 2."
    last = planned(made, HORIZON, 20_000)
    assert (last.cause, last.reason) == (
        "progressive",
        "The plan ends with 20000 samples: kappa may be as large as it can.",
    )


def test_a_stage_below_the_smallest_kappa_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"kappa_max 1 of a stage is below the smallest kappa \(2\)"):
        spec(kappa=[2, 8], progressive=[{"until": "1 epochs", "kappa_max": 1}])


def test_a_plan_for_a_batch_that_stays_at_the_base_is_refused() -> None:
    with pytest.raises(ValidationError, match="in the mode hold the batch stays at the base: leave progressive out"):
        spec(mode="hold", progressive=STAGES)


def test_the_mode_auto_without_a_measurement_is_refused() -> None:
    job = AUTO.model_dump(mode="json") | {"scaling": {"second_moment": "assume_noise"}}
    with pytest.raises(ValidationError, match="take measured or per_worker, or leave it out"):
        JobSpec.model_validate(job)


def followed(readings: Iterable[float]) -> list[Ceiling]:
    """Those in force one after the other, as readings come in, in samples; the base batch has 100."""
    seen: list[float] = []
    found = [Ceiling()]
    for reading in readings:
        seen.append(reading)
        fresh = by_noise(AUTO, seen, found[-1])
        if fresh != found[-1]:
            found.append(fresh)
    return found[1:]


def test_the_noise_counts_in_the_mode_auto_alone() -> None:
    assert by_noise(spec(), [50] * READINGS, Ceiling()).kappa == math.inf
    assert by_noise(spec(mode="auto", noise_margin=2), [300] * READINGS, Ceiling()).kappa == 6


def test_before_it_is_measured_often_enough_the_batch_stays_at_the_base() -> None:
    for readings in ([], [400] * (READINGS - 1)):
        found = by_noise(AUTO, readings, Ceiling())
        assert (found.kappa, found.cause) == (1, "noise")
        assert "not measured yet" in found.reason


def test_a_gradient_of_noise_alone_sets_no_limit_but_that_of_all_jobs() -> None:
    found = by_noise(AUTO, [math.inf] * READINGS, UNMEASURED)
    assert found.kappa == LARGEST
    assert found.reason == "The noise scale was beyond measure of late: kappa may be as large as it can."
    mostly = by_noise(AUTO, [400, *[math.inf] * (READINGS - 1)], UNMEASURED)
    assert (mostly.kappa, "400 samples and more" in mostly.reason) == (4, True)


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=50))
def test_an_estimate_that_trembles_moves_nothing(trembles: list[float]) -> None:
    assert len(followed([400] * READINGS + [400 * each for each in trembles])) == 2  # of these the first is UNMEASURED


@pytest.mark.parametrize("seed", range(20))
def test_readings_that_differ_by_half_either_way_hardly_ever_move_it(seed: int) -> None:
    """As they do in training with two shards a step; a job has a hundred."""
    chance = random.Random(seed)
    kappas = [each.kappa for each in followed(400 * math.exp(chance.gauss(0, 0.4)) for _ in range(100))]
    assert len(kappas) <= 4
    assert kappas == sorted(kappas), "it feels its way up, and does not turn round"


def test_it_follows_what_stays() -> None:
    kappas = [each.kappa for each in followed([400] * 30 + [1600] * 30 + [200] * 30)]
    assert kappas == [1, 4, 16, 2]


@given(st.lists(st.floats(1, 1e6), min_size=READINGS, max_size=30))
def test_it_is_near_one_of_the_readings_and_moves_by_a_stride(batches: list[float]) -> None:
    held = UNMEASURED
    for count in range(READINGS, len(batches) + 1):
        fresh, recent = by_noise(AUTO, batches[:count], held), batches[count - READINGS : count]
        assert min(LARGEST, min(recent) / 100) / STRIDE <= fresh.kappa * 1.0000001
        assert fresh.kappa <= max(recent) / 100 * STRIDE * 1.0000001
        if held != UNMEASURED and fresh != held:
            assert max(fresh.kappa / held.kappa, held.kappa / fresh.kappa) >= STRIDE * 0.9999999
        held = fresh


def test_the_lower_of_both_is_in_force_and_says_so() -> None:
    made = spec(mode="auto", progressive=STAGES)
    assert ceiling(made, HORIZON, 0, Ceiling(kappa=3.0, cause="noise")).cause == "progressive"
    assert ceiling(made, HORIZON, 20_000, Ceiling(kappa=3.0, cause="noise")).cause == "noise"
