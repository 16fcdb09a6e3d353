"""The job files in examples/ are what they say: jobs that the service takes, with settings that their recipe knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_schemas.jobs import JobSpec
from api_schemas.specfile import read_spec
from workers.recipes import load

FILES = sorted((Path(__file__).parent.parent / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_a_job(file: Path) -> None:
    with file.open() as opened:
        spec = JobSpec.model_validate(read_spec(opened))
    load(spec.recipe.name).Config.model_validate(spec.recipe.config)
    assert file.read_text().startswith("# ")
