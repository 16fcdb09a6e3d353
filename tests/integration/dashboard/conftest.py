"""One service and one browser for all that looks at the dashboard before real jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.dashboard.browser import Screen, chromium
from tests.integration.stage import Job, Stage, staged


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), slots=2) as stage:
        yield stage


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def screen(stage: Stage, browser: Browser) -> Iterator[Screen]:
    screen = Screen(browser, stage.address)
    yield screen
    screen.close()
    assert screen.complaints == []


@pytest.fixture(scope="package")
def ended(stage: Stage) -> Job:
    """A job that succeeded, after a change of size, with checkpoints and weights."""
    job = stage.submit(
        name="short",
        schedule={"budget": "1500 base_steps", "warmup": "50 base_steps", "lr": "cosine"},
        elasticity={"workers": [1, 2]},
        evaluation={"every": "2 epochs"},
        checkpoint={"every": "20 epochs"},
        labels={"team": "vision"},
    )
    job.trains_on(2)
    stage.client.resize(job.id, 1)
    job.ends()
    return job


@pytest.fixture
def waiting(stage: Stage) -> Iterator[Job]:
    """A job that the cluster has no room for."""
    job = stage.submit(name="waiting", elasticity={"workers": [9, 9]})
    job.until(lambda view: view.status.code != "submitted")
    yield job
    stage.client.cancel(job.id)
