from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.api_schemas.answers import SPEC, Answers, job_view
from tests.api_schemas.commands import JOB


@pytest.fixture
def service() -> Answers:
    """It knows one job, which trains."""
    answers = Answers()
    answers.add("GET", JOB, job_view())
    return answers


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """The path of a job's file."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return str(path)
