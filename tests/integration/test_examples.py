"""Job files of examples/ through the real service, shortened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from api_schemas.specfile import read_spec
from api_schemas.views import Phase
from tests.integration.stage import Job, Stage, staged

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data"), slots=2) as stage:
        yield stage


def submit(stage: Stage, file: str, **changes: Any) -> Job:
    with (EXAMPLES / file).open() as opened:
        return Job(stage, stage.client.submit(read_spec(opened) | changes).id)


def test_a_script_that_became_a_recipe(stage: Stage) -> None:
    view = submit(stage, "own_recipe/job.yaml").ends()
    assert view.evaluation is not None
    assert view.evaluation.ema is not None
    assert (view.evaluation.ema["loss"] or 1) < 0.03


def test_byol_grows_as_planned(stage: Stage) -> None:
    elasticity = {"workers": [1, 2], "kappa": [1, 3], "progressive": [{"until": "2 epochs", "kappa_max": 1}]}
    job = submit(stage, "progressive.yaml", schedule={"budget": "5 epochs"}, elasticity=elasticity, evaluation={})
    job.ends()
    (row,) = (row for row in job.rows() if row.cause == "progressive")
    assert row.kappa == (1, 3)
    assert 2 * 1437 <= row.samples < 2 * 1437 + 64
    assert row.after["ema_momentum"] == pytest.approx(0.99**3)
    assert row.reason == "The plan ends with 2 epochs: kappa may be as large as it can."
    job.assert_exactly_once()


@pytest.mark.parametrize("engine", ["in_place", "ray_train"])
def test_a_recipe_that_comes_with_the_job(stage: Stage, tmp_path: Path, engine: str) -> None:
    package = tmp_path / f"shipped_{engine}.zip"
    with ZipFile(package, "w") as archive:
        archive.writestr("any/shipped/__init__.py", "")
        archive.write(EXAMPLES / "own_recipe" / "sine.py", "any/shipped/sine.py")
    recipe = {"name": "shipped.sine:Sine", "config": {"width": 32}, "py_modules": [package.as_uri()]}
    view = submit(stage, "own_recipe/job.yaml", recipe=recipe, engine=engine).ends()
    assert view.evaluation is not None


def test_a_package_that_is_not_there_is_named(stage: Stage, tmp_path: Path) -> None:
    missing = tmp_path / "missing.zip"
    recipe = {"name": "shipped.sine:Sine", "config": {}, "py_modules": [missing.as_uri()]}
    view = submit(stage, "own_recipe/job.yaml", recipe=recipe).ends(Phase.FAILED)
    assert "packages could not be put on its path" in view.status.message
    assert str(missing) in view.status.message
