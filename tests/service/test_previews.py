"""Previews equal what the scaling rules and the trainer's own function say: nothing is worked out a second time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_schemas import scaling
from api_schemas.dynamics import Size, values_at, warnings_at
from api_schemas.jobs import JobSpec
from api_schemas.optimizers import OPTIMIZERS
from service.previews import MAX_SIZES, job_preview
from tests.service.world import World, pointers, spec

KAPPAS = [0.5, 1, 2, 8, 64]


def post(world: World, **body: Any) -> httpx.Response:
    return world.http.post("/v1/scaling/preview", json={"optimizer": {"name": "sgd", "lr": 0.1}, "kappas": [1]} | body)


def rows(world: World, **body: Any) -> list[dict[str, Any]]:
    response = post(world, **body)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_scaled_as_the_rules_say(world: World, name: str) -> None:
    optimizer = {"name": name, "lr": 1e-3}
    base = OPTIMIZERS[name].model_validate(optimizer).base()
    for row in rows(world, optimizer=optimizer, kappas=KAPPAS):
        derived = scaling.derive(name, base, row["kappa"])
        assert row["values"] == as_json(derived.values)
        assert row["warnings"] == [finding.code for finding in derived.findings]
        assert row["error"] is None


def test_rows_come_in_the_order_asked_for(world: World) -> None:
    assert [row["kappa"] for row in rows(world, kappas=[4, 1, 2, 4])] == [4, 1, 2, 4]


@pytest.mark.parametrize(
    ("second_moment", "given", "used"),
    [
        ("assume_noise", {"f": 0.25}, {"f": 1.0}),
        ("measured", {"f": 0.25}, {"f": 0.25}),
        ("per_worker", {"f": 0.25}, {"f": 0.25, "second_moment": scaling.PER_WORKER}),
    ],
)
def test_the_noise_counts_as_the_mode_says(
    world: World, second_moment: str, given: dict[str, Any], used: dict[str, Any]
) -> None:
    adam = {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.99]}
    (row,) = rows(world, optimizer=adam, kappas=[8], second_moment=second_moment, **given)
    derived = scaling.derive("adam", {"lr": 1e-3, "betas": (0.9, 0.99)}, 8, **used)
    assert row["values"] == as_json(derived.values)


def test_the_published_rule_is_another_one(world: World) -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    (published,) = rows(world, optimizer=sgd, kappas=[8], rule="published")
    (matched,) = rows(world, optimizer=sgd, kappas=[8])
    assert published["values"] == scaling.derive("sgd", {"lr": 0.1, "momentum": 0.9}, 8, rule="published").values
    assert published["values"]["momentum"] != matched["values"]["momentum"]


def test_the_averages_are_scaled_where_they_are_given(world: World) -> None:
    first, second = rows(world, ema=0.99, bn_momentum=0.1, kappas=[1, 8])
    assert (first["values"]["ema_momentum"], first["values"]["bn_momentum"]) == pytest.approx((0.99, 0.1))
    assert second["values"]["ema_momentum"] == scaling.ema_momentum(0.99, 8)
    assert second["values"]["bn_momentum"] == scaling.batchnorm_momentum(0.1, 8, 1, 1)
    (without,) = rows(world)
    assert not {"ema_momentum", "bn_momentum"} & without["values"].keys()


def test_warnings_of_the_averages_are_told(world: World) -> None:
    (row,) = rows(world, ema=0.9, bn_momentum=0.5, kappas=[1000])
    expected = [*scaling.ema_findings(0.9, 1000), *scaling.batchnorm_findings(0.5, 1000)]
    assert expected
    assert row["warnings"] == [finding.code for finding in expected]


def test_a_kappa_that_is_refused_does_not_fail_the_others(world: World) -> None:
    radam = {"name": "radam", "lr": 1e-3, "betas": [0.9, 0.99]}
    taken, refused = rows(world, optimizer=radam, kappas=[1, 1000])
    assert (taken["error"], refused["error"], refused["values"]) == (None, "rectification_lost", {})
    assert taken["values"]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kappas": []}, "/kappas"),
        ({"kappas": [1] * 65}, "/kappas"),
        ({"kappas": [1, 0]}, "/kappas/1"),
        ({"kappas": [1e5]}, "/kappas/0"),
        ({"optimizer": {"name": "sgd"}}, "/optimizer/lr"),
        ({"optimizer": {"name": "muon", "lr": 1}}, "/optimizer/name"),
        ({"ema": 1.5}, "/ema"),
        ({"bn_momentum": 0}, "/bn_momentum"),
        ({"f": -0.1}, "/f"),
        ({"rule": "linear"}, "/rule"),
        ({"second_moment": "guess"}, "/second_moment"),
        ({"kappa": 1}, "/kappa"),
    ],
)
def test_a_wrong_field_is_named(world: World, change: dict[str, Any], pointer: str) -> None:
    assert list(pointers(post(world, **change))) == [pointer]


FRACTION = st.floats(0, 1)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(list(OPTIMIZERS)),
    lr=st.floats(0, exclude_min=True, allow_infinity=False),
    kappas=st.lists(st.floats(0, 1e4, exclude_min=True), min_size=1, max_size=4),
    ema=st.none() | FRACTION,
    bn_momentum=st.none() | st.floats(0, 1, exclude_min=True),
    f=FRACTION,
    mode=st.sampled_from(["assume_noise", "measured", "per_worker"]),
    rule=st.sampled_from(["matched", "published"]),
)
def test_every_request_that_is_allowed_has_its_rows(
    world: World,
    name: str,
    lr: float,
    kappas: list[float],
    ema: float | None,
    bn_momentum: float | None,
    f: float,
    mode: str,
    rule: str,
) -> None:
    optimizer = {"name": name, "lr": lr}
    averages = {"ema": ema, "bn_momentum": bn_momentum}
    found = rows(world, optimizer=optimizer, kappas=kappas, f=f, second_moment=mode, rule=rule, **averages)
    assert [row["kappa"] for row in found] == kappas
    assert all(bool(row["values"]) == (row["error"] is None) for row in found)


def test_a_jobs_sizes_are_those_of_the_trainer() -> None:
    job = JobSpec.model_validate(
        spec(
            optimizer={"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.99]},
            ema={"momentum": 0.99},
            clip={"norm": 1.0},
            elasticity={"workers": [1, 6], "kappa": [1, 4]},
        )
    )
    sizes = job_preview(job).sizes
    assert [size.workers for size in sizes] == [1, 2, 3, 4, 5, 6]
    for shown in sizes:
        size = Size.of(job, shown.workers)
        assert (shown.batch, shown.kappa) == (size.batch, size.kappa)
        assert shown.values == values_at(job, size, 0, None)
        assert shown.warnings == warnings_at(job, size, None)
    assert [size.kappa for size in sizes] == [1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("second_moment", "told"), [("assume_noise", False), ("measured", True), ("per_worker", False)]
)
def test_a_preview_says_where_noise_that_is_measured_later_makes_other_values(second_moment: str, told: bool) -> None:
    job = JobSpec.model_validate(
        spec(
            optimizer={"name": "adamw", "lr": 1e-3},
            scaling={"second_moment": second_moment},
            elasticity={"workers": [2, 4], "kappa": [1, 4]},
        )
    )
    assert bool(job_preview(job).warnings) == told


@given(low=st.integers(1, 10_000), more=st.integers(0, 9999))
def test_sizes_are_spread_from_the_fewest_to_the_most(low: int, more: int) -> None:
    high = min(low + more, 10_000)
    workers = [
        size.workers for size in job_preview(JobSpec.model_validate(spec(elasticity={"workers": [low, high]}))).sizes
    ]
    assert (workers[0], workers[-1]) == (low, high)
    assert workers == sorted(set(workers))
    assert len(workers) == min(high - low + 1, MAX_SIZES)
