"""What the spec alone says of a job's sizes."""

from __future__ import annotations

from typing import Any

import pytest

from api_schemas.dynamics import Horizon, Size, most_workers, state_factors, values_at
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


# -- what is kept, for comparisons -------------------------------------------------------------------------------------

FOURFOLD = {"batch": {"base": 64, "per_worker": 64}, "elasticity": {"workers": [1, 4]}, "ema": {"momentum": 0.9}}
HORIZON = Horizon(epoch_size=640, total_samples=6400, warmup_samples=0, bn_momentum=0.1)


def at_four(**scaling: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Values at kappa = 4, and the state's factors on the way there."""
    made = spec(**FOURFOLD, clip={"norm": 1.0}, scaling={"second_moment": "assume_noise", **scaling})
    base, four = Size.of(made, 1), Size.of(made, 4)
    assert (base.kappa, four.kappa) == (1, 4)
    return values_at(made, four, 0, HORIZON), state_factors(made, base, four)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("lr", {"lr"}),
        ("optimizer", {"betas", "eps"}),
        ("ema", {"ema_momentum"}),
        ("batchnorm", {"bn_momentum"}),
        ("state", set()),
    ],
)
def test_what_is_kept_has_its_base_value_and_nothing_else_has(part: str, names: set[str]) -> None:
    base = values_at(spec(**FOURFOLD, clip={"norm": 1.0}), Size.of(spec(), 1), 0, HORIZON)
    kept, factors = at_four(keep=[part])
    scaled, all_factors = at_four()
    assert {name for name in kept if kept[name] != scaled[name]} == names
    assert all(kept[name] == base[name] for name in names)
    assert factors == (dict.fromkeys(all_factors, 1.0) if part == "state" else all_factors)


def test_with_all_kept_nothing_follows_the_batch() -> None:
    kept, factors = at_four(keep=["lr", "optimizer", "state", "ema", "batchnorm"])
    assert kept == values_at(spec(**FOURFOLD, clip={"norm": 1.0}), Size.of(spec(), 1), 0, HORIZON)
    assert set(factors.values()) == {1.0}


def test_what_is_kept_survives_json_in_a_fixed_order() -> None:
    made = spec(scaling={"keep": ["state", "ema", "lr"]})
    assert made.model_dump(mode="json")["scaling"]["keep"] == ["ema", "lr", "state"]
    assert JobSpec.model_validate_json(made.model_dump_json()) == made


# -- the EMA on its way ------------------------------------------------------------------------------------------------


def test_an_ema_that_warms_up_is_short_at_first_and_counts_base_steps() -> None:
    made = spec(**FOURFOLD | {"ema": {"momentum": 0.9, "warmup": True}})
    momenta = [values_at(made, Size.of(made, 4), steps * 64, HORIZON)["ema_momentum"] for steps in (0, 8, 1000)]
    assert momenta == pytest.approx([0.1**4, 0.5**4, 0.9**4])


def test_an_ema_of_the_weights_before_the_step_cannot_interpolate() -> None:
    with pytest.raises(ValueError, match="leave order at 'after'"):
        spec(ema={"momentum": 0.9, "order": "before", "interpolate": True})


@pytest.mark.parametrize("half_life", ["64 samples", "0.1 epochs", "1 base_steps"])
def test_a_half_life_is_one_in_samples_whatever_the_batch(half_life: str) -> None:
    made = spec(**FOURFOLD | {"ema": {"half_life": half_life}})
    momenta = [values_at(made, Size.of(made, workers), 0, HORIZON)["ema_momentum"] for workers in (1, 2, 4)]
    assert momenta == pytest.approx([0.5, 0.5**2, 0.5**4])


def test_a_half_life_in_epochs_is_unknown_until_the_data_are() -> None:
    made = spec(ema={"half_life": "0.1 epochs"})
    assert "ema_momentum" not in values_at(made, Size.of(made, 1), 0, None)


def test_an_ema_rises_to_1_by_samples_and_follows_the_batch_on_the_way() -> None:
    made = spec(**FOURFOLD | {"ema": {"half_life": "64 samples", "schedule": "cosine"}})
    momenta = [values_at(made, Size.of(made, 4), samples, HORIZON)["ema_momentum"] for samples in (0, 3200, 6400)]
    assert momenta == pytest.approx([0.5**4, 0.75**4, 1])
