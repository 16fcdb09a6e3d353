"""What a user gets wrong, or a machine does: said in words, at the right place, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_schemas.errors import InvalidRequest, UnknownRecipe
from api_schemas.views import Phase
from service.processes import Process
from tests.integration.stage import Stage, spec, staged

OWN_RECIPE = '''
"""Fit a line, with noise."""
import sys

import torch
from pydantic import BaseModel
from torch import nn
from torch.utils.data import TensorDataset


class Line:
    """Fit a line to noisy points."""

    class Config(BaseModel):
        """Settings of the line."""

        slope: float = 2.0
        points: int = 1000
        raises_at: int | None = None
        exits: bool = False

    def __init__(self, config, seed):
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)

    def model(self):
        torch.manual_seed(0)
        return nn.Linear(1, 1)

    def train_data(self):
        x = torch.randn(self.config.points, 1, generator=self.generator)
        noise = 0.1 * torch.randn(self.config.points, 1, generator=self.generator)
        return TensorDataset(x, self.config.slope * x + 1 + noise)

    def loss(self, model, batch, step):
        if self.config.raises_at is not None and step.samples >= self.config.raises_at:
            print("about to divide")
            if self.config.exits:
                sys.exit("the slope is gone")
            raise ZeroDivisionError("the slope is gone")
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model):
        x = torch.linspace(-1, 1, 11).unsqueeze(1)
        with torch.no_grad():
            return {"loss": nn.functional.mse_loss(model(x), self.config.slope * x + 1).item()}
'''


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "lines").mkdir()
    (packages / "lines" / "__init__.py").write_text(OWN_RECIPE)
    with staged(tmp_path_factory.mktemp("data"), packages=packages) as stage:
        yield stage


def line(**config: Any) -> dict[str, Any]:
    return {
        "recipe": {"name": "lines:Line", "config": config},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "schedule": {"budget": "40 epochs"},
    }


def test_a_users_own_recipe_trains(stage: Stage) -> None:
    job = stage.submit(**line(slope=-3.0))
    view = job.ends()
    assert view.evaluation is not None
    assert view.evaluation.ema is not None
    assert (view.evaluation.ema["loss"] or 1) < 0.01
    assert job.weights()["weight"].item() == pytest.approx(-3.0, abs=0.05)


@pytest.mark.parametrize("exits", [False, True], ids=["raises", "exits"])
@pytest.mark.parametrize("engine", ["in_place", "ray_train"])
def test_a_recipe_that_raises_fails_the_job_with_its_traceback(stage: Stage, engine: str, exits: bool) -> None:
    job = stage.submit(**line(raises_at=2000, exits=exits), engine=engine)
    status = job.ends(Phase.FAILED).status
    assert status.code == "recipe_raised"
    assert f"{'SystemExit' if exits else 'ZeroDivisionError'}: the slope is gone" in status.message
    assert "in loss" in (status.traceback or "")
    assert any(text.endswith("about to divide") for text in status.log_tail)
    assert any("about to divide" in text for text in stage.client.logs(job.id))
    assert job.view.progress.samples >= 2000
    job.assert_exactly_once()


def test_what_a_node_does_not_have_fails_the_job_and_says_what(stage: Stage) -> None:
    status = stage.submit(recipe={"name": "nowhere.to:Find"}).ends(Phase.FAILED).status
    assert status.code == "unknown_recipe"
    assert "nowhere" in status.message


def test_a_setting_that_a_users_own_recipe_does_not_take_is_refused_at_once(stage: Stage) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stage.submit(**line(slope="steep"))
    assert [error.pointer for error in refused.value.errors] == ["/recipe/config/slope"]


def test_an_unknown_recipe_of_the_catalogue_is_refused_at_once(stage: Stage) -> None:
    with pytest.raises(UnknownRecipe, match="classify"):
        stage.client.submit(spec(recipe={"name": "clasify"}))
    with pytest.raises(InvalidRequest) as refused:
        stage.client.submit(spec(recipe={"name": "classify", "config": {"depth": 0}}))
    assert [error.pointer for error in refused.value.errors] == ["/recipe/config/depth"]


def test_more_workers_than_the_cluster_has_are_accepted_and_explained(stage: Stage) -> None:
    job = stage.submit(elasticity={"workers": [4, 8]})
    view = job.until(lambda view: view.status.code == "waiting_for_slots")
    assert view.status.phase is Phase.QUEUED
    assert "4 workers" in view.status.message
    assert "3" in view.status.message
    queue = [(job.id, view.status.message)]
    job.until(lambda _: [(each.id, each.message) for each in stage.client.cluster().queue] == queue)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)


def test_storage_that_fails_fails_the_checkpoint_aloud_and_keeps_the_one_before(stage: Stage) -> None:
    job = stage.submit(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": 1024, "depth": 3}},
        schedule={"budget": "1500 base_steps"},
        checkpoint={"every": "2 epochs"},
    )
    job.until(lambda _: len(job.said("checkpoint_saved")) >= 1)
    folder = stage.data_folder / "jobs" / job.id / "checkpoints"
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.write_text("a file where a folder must be")
    failed = job.until(lambda _: bool(job.said("checkpoint_failed")))
    assert failed.status.phase is Phase.RUNNING
    assert "checkpoints" in job.said("checkpoint_failed")[0].message
    folder.unlink()
    kept.rename(folder)
    saved = len(job.said("checkpoint_saved"))
    job.until(lambda _: len(job.said("checkpoint_saved")) > saved)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    assert stage.client.checkpoints(job.id).items
    shutil.rmtree(folder)


def test_storage_that_is_away_while_a_controller_is_started_again_costs_nothing(stage: Stage) -> None:
    """What the first one told meanwhile is stored nowhere, and the next one cannot read even what is."""
    job = stage.submit(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": 1024, "depth": 3}},
        schedule={"budget": "3000 base_steps"},
    )
    job.trains_on(1)
    workers = job.ranks()
    folder = stage.data_folder / "jobs" / job.id / "spool"
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.symlink_to(folder)
    job.progresses()
    os.kill(job.controller(), signal.SIGKILL)
    time.sleep(6.0)  # the next one has tried by then, and without it the service would have given it up
    folder.unlink()
    kept.rename(folder)
    job.progresses()
    assert job.ranks() == workers, job.story()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    assert {event.incarnation for event in job.events()} == {0, 1}
    job.assert_exactly_once()


def test_a_stop_in_the_middle_leaves_no_process(tmp_path: Path) -> None:
    with staged(tmp_path, slots=1) as stage:
        job = stage.submit(schedule={"budget": "100000 base_steps"})
        job.until(lambda view: view.workers == 1)
        processes = [Process.of(pid) for pid in (*job.ranks().values(), job.controller())]
        stage.stop()
        assert not any(process.alive() for process in processes if process)
