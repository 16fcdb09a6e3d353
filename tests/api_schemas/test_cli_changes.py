"""Jobs changed and removed on the command line."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api_schemas.errors import Conflict
from api_schemas.jobs import JobSpec
from api_schemas.views import Phase
from tests.api_schemas.answers import SPEC, Answers, job_view
from tests.api_schemas.commands import JOB, emascale


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (["--workers", "1:8"], {"elasticity": {"workers": [1, 8]}}),
        (["--workers", "4"], {"elasticity": {"workers": [4, 4]}}),
        (["--kappa", "0.5:16"], {"elasticity": {"kappa": [0.5, 16]}}),
        (["--workers", "1:8", "--kappa", "2"], {"elasticity": {"workers": [1, 8], "kappa": [2, 2]}}),
        (["--priority", "0"], {"priority": 0}),
        (["--label", "team=audio", "--label", "new=1"], {"labels": {"team": "audio", "stage": "a", "new": "1"}}),
        (["--label", "team=", "--label", "stage="], {"labels": {}}),
    ],
)
def test_an_update_sends_what_shall_change(options: list[str], change: dict[str, Any]) -> None:
    service = Answers()
    labelled = JobSpec.model_validate(SPEC | {"labels": {"team": "vision", "stage": "a"}})
    service.add("GET", JOB, job_view(spec=labelled))
    service.add("PATCH", JOB, job_view(spec=labelled))

    result = emascale(service, "update", "1k114apr40046ss7", *options)

    assert result.exit_code == 0, result.output
    assert service.last.method == "PATCH"
    assert service.body() == change


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "Say what to change: --workers, --kappa, --priority or --label."),
        (["--workers", "a:b"], "--workers a:b: must read LOW:HIGH, as 1:8, or one number alone."),
        (["--workers", "1.5"], "--workers 1.5: must read"),
        (["--workers", ""], "--workers : must read"),
        (["--kappa", "nan"], "--kappa nan: must read"),
        (["--kappa", "1:"], "--kappa 1:: must read"),
        (["--label", "x"], "--label x: must read KEY=VALUE, or KEY= to remove it."),
        (["--label", "=x"], "--label =x: must read"),
    ],
)
def test_an_update_that_says_nothing_is_refused_before_it_is_sent(
    service: Answers, options: list[str], complaint: str
) -> None:
    result = emascale(service, "update", "1k114apr40046ss7", *options)

    assert result.exit_code == 2
    assert result.stderr.startswith(complaint)
    assert {request.method for request in service.requests} <= {"GET"}


@pytest.fixture
def over() -> Answers:
    """It knows a job that has ended, and may be removed."""
    service = Answers()
    service.add("GET", JOB, job_view(phase=Phase.SUCCEEDED))
    service.add("DELETE", JOB, httpx.Response(204))
    return service


@pytest.mark.parametrize(("answer", "code", "removed"), [("y\n", 0, True), ("n\n", 1, False), ("", 1, False)])
def test_a_job_is_removed_once_that_is_confirmed(over: Answers, answer: str, code: int, removed: bool) -> None:
    result = emascale(over, "delete", "1k114apr40046ss7", input=answer)

    assert result.exit_code == code
    assert "Remove digits (1k114apr40046ss7), with its history, logs, checkpoints and artifacts?" in result.stderr
    assert (over.last.method == "DELETE") is removed
    assert ("digits (1k114apr40046ss7) is removed." in result.stdout) is removed


def test_with_yes_nobody_is_asked(over: Answers) -> None:
    result = emascale(over, "delete", "1k114apr40046ss7", "--yes")

    assert (result.exit_code, result.stderr, over.last.method) == (0, "", "DELETE")


def test_of_a_job_that_lives_the_service_says_what_to_do_first(service: Answers) -> None:
    service.add("DELETE", JOB, Conflict("Cancel it before you delete it: it is running."))

    result = emascale(service, "delete", "1k114apr40046ss7")

    assert (result.exit_code, result.stderr) == (1, "Cancel it before you delete it: it is running.\n")
