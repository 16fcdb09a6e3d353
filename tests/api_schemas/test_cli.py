from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from api_schemas.cli import app
from api_schemas.errors import Conflict, FieldError, InternalError, InvalidRequest
from api_schemas.previews import JobPreview, ScalingPreview, SizePreview
from api_schemas.views import Artifact, Checkpoint, ClusterView, JobRow, Ledger, Page, Phase, RecipeInfo, ResizeAnswer
from tests.api_schemas.answers import (
    SPEC,
    Answers,
    job_row,
    job_view,
    resize_preview,
)
from tests.api_schemas.commands import JOB, emascale, ended


def test_submit_sends_the_file(service: Answers, spec: str) -> None:
    service.add("POST", "/v1/jobs", job_view(), status=201)

    result = emascale(service, "submit", spec)

    assert result.exit_code == 0
    assert "1k114apr40046ss7" in result.stdout
    assert service.body() == SPEC


def test_submit_sets_fields_on_top(service: Answers, spec: str) -> None:
    service.add("POST", "/v1/jobs", job_view(), status=201)

    changes = ["optimizer.lr=1e-3", "elasticity.workers=[2, 8]", "labels.team=vision", "clip.norm=1", "name=other"]
    emascale(service, "submit", spec, *(part for change in changes for part in ("--set", change)))

    assert service.body() == SPEC | {
        "optimizer": {"name": "sgd", "lr": 0.001},
        "elasticity": {"workers": [2, 8]},
        "labels": {"team": "vision"},
        "clip": {"norm": 1},
        "name": "other",
    }


@pytest.mark.parametrize("text", ['{"optimizer": {"lr": 1e-3, "eps": 1E+2}}', "optimizer: {lr: 1e-3, eps: 1E+2}"])
def test_numbers_mean_the_same_in_yaml_and_json(service: Answers, text: str) -> None:
    service.add("POST", "/v1/jobs", job_view(), status=201)

    emascale(service, "submit", "-", input=text)

    assert service.body() == {"optimizer": {"lr": 0.001, "eps": 100.0}}


def test_a_dry_run_shows_the_sizes(service: Answers, spec: str) -> None:
    values = {"lr": 0.2, "betas": [0.81, 0.998]}
    sizes = [SizePreview(workers=2, batch=128, kappa=2.0, values=values, warnings=["ema_coarse"])]
    service.add("POST", "/v1/jobs", JobPreview(spec=SPEC, sizes=sizes))

    shown = emascale(service, "submit", spec, "--dry-run").stdout
    also_shown = emascale(service, "preview", spec).stdout

    assert service.last.url.params["dry_run"] == "true"
    assert shown == also_shown
    assert "0.81, 0.998" in shown
    assert "ema_coarse" in shown


def test_list_filters_and_shows(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page(items=[job_row("1k114apr40046ss7"), job_row("def456", name="other")]))

    result = emascale(service, "list", "--status", "running", "--status", "queued", "--label", "team=vision")

    assert service.last.url.params.get_list("status") == ["running", "queued"]
    assert service.last.url.params["label"] == "team=vision"
    assert [line.split()[0] for line in result.stdout.splitlines() if "digits" in line or "other" in line] == [
        "1k114apr40046ss7",
        "def456",
    ]
    assert "25%" in result.stdout


def test_a_list_says_what_to_do_when_it_is_empty_or_goes_on(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page[JobRow](items=[]))
    assert emascale(service, "list").stdout == "No jobs yet; `emascale submit FILE` hands one in.\n"
    assert emascale(service, "list", "--name", "x").stdout == "No job is like that.\n"

    longer = Answers()
    longer.add("GET", "/v1/jobs", Page(items=[job_row("1k114apr40046ss7")], next="cursor"))
    assert emascale(longer, "list").stdout.splitlines()[-1] == "There are more; --after cursor shows older ones."
    emascale(longer, "list", "--after", "cursor")
    assert dict(longer.last.url.params) == {"limit": "20", "after": "cursor"}


def test_get_by_prefix(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page(items=[job_row("1k114apr40046ss7")]))

    shown = emascale(service, "get", "1k11").stdout

    assert "digits (1k114apr40046ss7)" in shown
    assert "0.9801" in shown


def test_a_failure_shows_its_traceback_and_log() -> None:
    status = job_view().status.model_copy(update={"traceback": "ValueError: [red]", "log_tail": ["last [line]"]})
    service = Answers()
    service.add("GET", JOB, job_view(status=status))

    shown = emascale(service, "get", "1k114apr40046ss7").stdout

    assert "ValueError: [red]" in shown
    assert "last [line]" in shown


def test_resize_asks_for_workers(service: Answers) -> None:
    service.add("POST", f"{JOB}/resize", job_view(target_workers=3))

    result = emascale(service, "resize", "1k114apr40046ss7", "3", "--at-samples", "5000")

    assert result.exit_code == 0
    assert result.stdout.startswith("digits was asked for 3 workers from sample 5000 on;")
    assert service.body() == {"workers": 3, "at_samples": 5000}


def test_a_resize_says_what_stands_in_its_way(service: Answers) -> None:
    room = "The cluster has room for 2 workers of this job; the others start when nodes join."
    answer = ResizeAnswer(**dict(job_view(target_workers=4)), warnings=["step_coarse", room])
    service.add("POST", f"{JOB}/resize", answer)

    _, *lines = emascale(service, "resize", "1k114apr40046ss7", "4").stdout.splitlines()

    assert lines == ["step_coarse (the step is above a quarter of the stability bound)", room]


def test_a_size_that_was_asked_for_is_taken_back(service: Answers) -> None:
    service.add("POST", f"{JOB}/resize", job_view())

    result = emascale(service, "resize", "1k114apr40046ss7", "auto")

    assert result.exit_code == 0
    assert result.stdout.startswith("digits may have all workers that there is room for again;")
    assert service.body() == {"workers": None, "at_samples": None}


@pytest.mark.parametrize("size", ["0", "-1", "2.5", "many", "٣", ""])
def test_a_size_is_a_number_or_auto(service: Answers, size: str) -> None:
    result = emascale(service, "resize", "1k114apr40046ss7", "--", size)

    assert result.exit_code == 2
    assert result.stderr == f"WORKERS must be a number from 1 on, or auto; it is {size!r}.\n"


def test_a_resize_s_dry_run_shows_before_and_after(service: Answers) -> None:
    service.add("POST", f"{JOB}/resize", resize_preview())

    rows = [
        line.split() for line in emascale(service, "resize", "1k114apr40046ss7", "2", "--dry-run").stdout.splitlines()
    ]

    assert ["lr", "0.4", "0.2"] in rows
    assert ["kappa", "4", "2"] in rows
    assert ["state", "momentum_buffer", "x", "0.5"] in rows


@pytest.mark.parametrize(
    ("command", "phase"),
    [("pause", Phase.PAUSING), ("resume", Phase.QUEUED), ("cancel", Phase.CANCELLING)],
)
def test_what_is_asked_of_a_job_shows_where_it_is_then(service: Answers, command: str, phase: Phase) -> None:
    service.add("POST", f"{JOB}/{command}", job_view(phase=phase))

    assert f"digits is {phase}" in emascale(service, command, "1k114apr40046ss7").stdout


def prepared() -> Answers:
    service = ended(Phase.SUCCEEDED)
    service.add("POST", "/v1/jobs", job_view())
    service.add("GET", "/v1/jobs", Page(items=[job_row("1k114apr40046ss7")]))
    service.add("POST", f"{JOB}/resize", job_view())
    for verb in ("pause", "resume", "cancel"):
        service.add("POST", f"{JOB}/{verb}", job_view())
    service.add("PATCH", JOB, job_view())
    service.add("DELETE", JOB, httpx.Response(204))
    service.add("GET", f"{JOB}/ledger", Ledger(epochs=[], samples_lost=0, samples_repeated=0))
    service.add("GET", f"{JOB}/artifacts", Page[Artifact](items=[]))
    service.add("GET", f"{JOB}/checkpoints", Page[Checkpoint](items=[]))
    service.add("GET", f"{JOB}/logs", httpx.Response(200, text="a line\n"))
    service.add("POST", "/v1/scaling/preview", ScalingPreview(items=[]))
    service.add("GET", "/v1/recipes", Page[RecipeInfo](items=[]))
    service.add("GET", "/v1/cluster", ClusterView(connected=False, seen_at=None, nodes=[], queue=[]))
    return service


ARGUMENTS = {
    "submit": ["FILE"],
    "list": [],
    "get": ["1k114apr40046ss7"],
    "watch": ["1k114apr40046ss7"],
    "resize": ["1k114apr40046ss7", "2"],
    "resizes": ["1k114apr40046ss7"],
    "pause": ["1k114apr40046ss7"],
    "resume": ["1k114apr40046ss7"],
    "cancel": ["1k114apr40046ss7"],
    "update": ["1k114apr40046ss7", "--priority", "1"],
    "delete": ["1k114apr40046ss7", "--yes"],
    "logs": ["1k114apr40046ss7"],
    "events": ["1k114apr40046ss7"],
    "metrics": ["1k114apr40046ss7"],
    "ledger": ["1k114apr40046ss7"],
    "artifacts": ["1k114apr40046ss7"],
    "checkpoints": ["1k114apr40046ss7"],
    "preview": ["--optimizer", "sgd"],
    "recipes": [],
    "cluster": [],
}


def test_every_command_is_known_here() -> None:
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == set(ARGUMENTS)  # type: ignore[union-attr]


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_speaks_json(command: str, spec: str) -> None:
    arguments = [spec if part == "FILE" else part for part in ARGUMENTS[command]]

    result = emascale(prepared(), command, *arguments, "--json")

    assert result.exit_code == 0, result.output
    documents = result.stdout.splitlines() if command in ("watch", "logs") else [result.stdout]
    assert [json.loads(document) for document in documents]


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_shows_something(command: str, spec: str) -> None:
    arguments = [spec if part == "FILE" else part for part in ARGUMENTS[command]]

    result = emascale(prepared(), command, *arguments)

    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_each_wrong_field_has_its_line(service: Answers, spec: str) -> None:
    wrong = [
        FieldError(pointer="/batch/base", message="must be 1 or more"),
        FieldError(pointer="/optimizer/lr", message="must be greater than 0"),
    ]
    service.add("POST", "/v1/jobs", InvalidRequest("2 fields are wrong.", errors=wrong, request_id="r1"))

    result = emascale(service, "submit", spec)

    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["batch.base: must be 1 or more", "optimizer.lr: must be greater than 0"]


@pytest.mark.parametrize(
    ("failure", "lines"),
    [
        (Conflict("The job has ended."), ["The job has ended."]),
        (InternalError("The service failed.", request_id="r1"), ["The service failed.", "(request r1)"]),
    ],
    ids=["conflict", "internal"],
)
def test_a_failure_is_a_line_and_exit_code_1(service: Answers, failure: Any, lines: list[str]) -> None:
    service.add("POST", f"{JOB}/cancel", failure)

    result = emascale(service, "cancel", "1k114apr40046ss7")

    assert (result.exit_code, result.stderr.splitlines()) == (1, lines)


def test_no_service_is_a_line_and_exit_code_1() -> None:
    service = Answers()
    service.add("GET", "/v1/cluster", httpx.ConnectError("refused"))

    result = emascale(service, "--url", "http://far:9", "cluster")

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "http://far:9" in result.stderr


@pytest.mark.parametrize(
    ("text", "settings", "complaint"),
    [
        ("a: [1", [], "line 1"),
        ("- 1", [], "must hold a mapping"),
        ("\x00", [], "not YAML or JSON"),
        ("a: 1", ["a"], "path.to.field=value"),
        ("a: 1", ["a..b=1"], "path.to.field=value"),
        ("a: 1", ["a.b=1"], "a.b: `a` has no fields"),
        ("a: 1", ["b=[1"], "--set b=[1"),
    ],
)
def test_a_wrong_spec_is_a_line_and_exit_code_2(
    service: Answers, text: str, settings: list[str], complaint: str
) -> None:
    result = emascale(service, "submit", "-", *(f"--set={setting}" for setting in settings), input=text)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", ["submit /no/such/file", "get", "resize 1k114apr40046ss7 0", "preview", "nonsense"]
)
def test_wrong_usage_is_exit_code_2(service: Answers, arguments: str) -> None:
    result = emascale(service, *arguments.split())

    assert result.exit_code == 2
    assert "Traceback" not in result.output
