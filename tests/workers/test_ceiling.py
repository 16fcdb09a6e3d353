"""A batch that follows its plan, or the noise, in the middle of a generation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor, nn

from api_schemas.jobs import JobSpec
from tests.workers.test_trainer import BATCH, HOST, Desk, spec
from workers.mesh import TCPStore
from workers.noise import NoiseEstimate
from workers.recipes import StepContext

STEPS = 60


@pytest.fixture
def store() -> TCPStore:
    return dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def job(*, every: int | None = None, **elasticity: Any) -> JobSpec:
    return spec(
        schedule={"budget": f"{STEPS * BATCH} samples"},
        batch={"base": BATCH, "per_worker": 8 * BATCH},
        elasticity={"kappa": [1, 8], **elasticity},
        checkpoint={"every": f"{every} base_steps" if every else None},
    )


def sizes(desk: Desk) -> list[tuple[int, tuple[float, float], str]]:
    return [(record["samples"], record["kappa"], record["cause"]) for record in desk.said("entered")]


def stages(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"until": f"{steps} base_steps", "kappa_max": kappa} for steps, kappa in pairs]


def test_the_plan_is_followed_at_its_samples_and_told(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, job(progressive=stages((10, 1), (26, 4), (STEPS, 2))))
    assert desk.train()
    assert sizes(desk) == [
        (0, (1.0, 1.0), "api"),
        (10 * BATCH, (1.0, 4.0), "progressive"),
        (26 * BATCH, (4.0, 2.0), "progressive"),
    ]
    told = desk.said("entered")[1]
    assert told["reason"] == "Until 26 base_steps kappa may be 4."
    assert told["before"]["ema_momentum"] == pytest.approx(0.9)
    assert told["after"]["ema_momentum"] == pytest.approx(0.9**4)
    assert told["state_factors"]
    assert desk.trainer.replica.samples == STEPS * BATCH


def test_a_run_that_was_cut_goes_on_in_the_stage_that_it_has_reached(tmp_path: Path, store: TCPStore) -> None:
    plan = job(every=14, progressive=stages((10, 1), (STEPS, 4)))
    whole = Desk(tmp_path / "whole", store, plan)
    whole.train()
    parts = Desk(tmp_path / "parts", store, plan)
    parts.generation = 100  # the store is shared
    assert not parts.train(leave_at=18 * BATCH)
    parts.trainer._archive.settle()
    again = Desk(tmp_path / "parts", store, plan)
    again.generation = 200
    assert again.train()
    (entered,) = again.said("entered")
    assert (entered["samples"], entered["kappa"]) == (14 * BATCH, (4.0, 4.0))
    one, two = whole.state(), again.state()
    assert all(one[name].equal(two[name]) for name in one)


def noise(batch: float) -> NoiseEstimate:
    """As if so many samples had been measured; infinite: no gradient is left beside the noise."""
    if math.isinf(batch):
        return NoiseEstimate(trace_sigma=1.0, grad_sqnorm=0.0, filled=1.0)
    return NoiseEstimate(trace_sigma=batch, grad_sqnorm=1.0, filled=1.0)


def test_a_batch_follows_the_noise_and_says_so(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, job(mode="auto"))
    replica, loss = desk.trainer.replica, desk.recipe.loss

    def measure(model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        replica.noise = noise((2 if step.samples < 20 * BATCH else 6) * BATCH)
        return loss(model, batch, step)

    desk.recipe.loss = measure  # type: ignore[method-assign]
    assert desk.train()
    changes = [(kappa, cause) for _, kappa, cause in sizes(desk)]
    assert changes == [((1.0, 1.0), "api"), ((1.0, 2.0), "noise"), ((2.0, 6.0), "noise")]
    assert desk.said("entered")[2]["reason"] == "The noise scale was 96 samples of late: kappa may be 6."


def test_what_the_first_steps_happened_to_be_is_not_followed(tmp_path: Path, store: TCPStore) -> None:
    desk = Desk(tmp_path, store, job(mode="auto"))
    replica, loss = desk.trainer.replica, desk.recipe.loss

    def measure(model: nn.Module, batch: Any, step: StepContext) -> Tensor:
        replica.noise = NoiseEstimate(trace_sigma=6 * BATCH, grad_sqnorm=1.0, filled=0.1)
        return loss(model, batch, step)

    desk.recipe.loss = measure  # type: ignore[method-assign]
    assert desk.train()
    assert sizes(desk) == [(0, (1.0, 1.0), "api")]


@pytest.mark.parametrize(("batch", "kappa"), [(4 * BATCH, 4.0), (math.inf, 8.0)])
def test_what_was_allowed_outlives_a_checkpoint(tmp_path: Path, store: TCPStore, batch: float, kappa: float) -> None:
    plan = job(every=10, mode="auto")
    desk = Desk(tmp_path, store, plan)
    desk.trainer.replica.noise = noise(batch)
    desk.train(leave_at=30 * BATCH)
    desk.trainer._archive.settle()
    again = Desk(tmp_path, store, plan)
    again.generation = 100
    again.train()
    assert again.said("entered")[0]["kappa"] == (kappa, kappa)
    assert again.trainer.replica.ceiling == desk.trainer.replica.ceiling
    assert again.trainer.replica._readings == desk.trainer.replica._readings
