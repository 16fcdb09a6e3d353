"""What a job left in its storage, on the command line: listed, and downloaded into files."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_schemas.cli.files import inside
from api_schemas.errors import InvalidRequest, Unavailable
from api_schemas.views import Artifact, Checkpoint, Page, Phase
from tests.api_schemas.answers import NOW, Answers, job_view
from tests.api_schemas.commands import JOB, emascale

EXPORTED = {"ema.safetensors": b"average", "target.safetensors": b"weights", "report/scores.json": b"{}"}
SAVED = {"manifest.json": b"{}", "shards/0.pt": b"state"}


def artifact(name: str, size: int) -> Artifact:
    return Artifact(name=name, bytes=size, url=f"{JOB}/artifacts/{name}", location=f"/srv/{name}")


@pytest.fixture
def service() -> Answers:
    """Of a job that exported three files and left one checkpoint."""
    answers = Answers()
    answers.add("GET", JOB, job_view(phase=Phase.SUCCEEDED))
    listed = [artifact(name, len(content)) for name, content in EXPORTED.items()]
    answers.add("GET", f"{JOB}/artifacts", Page(items=listed))
    saved = Checkpoint(name="s-500", samples=500, bytes=1_234_567, saved_at=NOW, files=list(SAVED))
    answers.add("GET", f"{JOB}/checkpoints", Page(items=[saved]))
    for name, content in EXPORTED.items():
        answers.add("GET", f"{JOB}/artifacts/{name}", httpx.Response(200, content=content))
    for name, content in SAVED.items():
        answers.add("GET", f"{JOB}/checkpoints/s-500/{name}", httpx.Response(200, content=content))
    return answers


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_artifacts_are_listed_with_the_way_to_them(service: Answers) -> None:
    shown = emascale(service, "artifacts", "1k114apr40046ss7").stdout

    assert ["ema.safetensors", "7", "B"] in [line.split() for line in shown.splitlines()]
    assert shown.splitlines()[-1] == "`emascale artifacts 1k114apr40046ss7 NAME` downloads one, --all all of them."
    assert "/srv" not in shown


def test_checkpoints_are_listed_with_the_way_to_them(service: Answers) -> None:
    lines = emascale(service, "checkpoints", "1k114apr40046ss7").stdout.splitlines()

    assert lines[2].split() == ["s-500", "500", "2026-01-02", "03:04:05", "1.2", "MB"]
    assert lines[-1] == "`emascale checkpoints 1k114apr40046ss7 NAME` downloads one."


@pytest.mark.parametrize("command", ["artifacts", "checkpoints"])
@pytest.mark.parametrize(("phase", "begins"), [(Phase.RUNNING, "No "), (Phase.CANCELLED, "It left no ")])
def test_that_there_are_none_is_said(command: str, phase: Phase, begins: str) -> None:
    service = Answers()
    service.add("GET", JOB, job_view(phase=phase))
    service.add("GET", f"{JOB}/{command}", Page[Artifact](items=[]))

    assert emascale(service, command, "1k114apr40046ss7").stdout.startswith(begins)


def test_an_artifact_comes_here(service: Answers, here: Path) -> None:
    result = emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors")

    assert result.stdout == "ema.safetensors  7 B\n"
    assert files(here) == {"ema.safetensors": b"average"}


@pytest.mark.parametrize(
    ("to", "written"), [("weights.st", "weights.st"), (".", "ema.safetensors"), ("new/weights", "new/weights")]
)
def test_it_may_go_elsewhere(service: Answers, here: Path, to: str, written: str) -> None:
    emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors", "--to", to)

    assert files(here) == {written: b"average"}


def test_all_of_them_go_into_a_folder(service: Answers, here: Path) -> None:
    emascale(service, "artifacts", "1k114apr40046ss7", "--all", "--to", "out")

    assert files(here / "out") == EXPORTED


def test_a_checkpoint_is_a_folder(service: Answers, here: Path) -> None:
    emascale(service, "checkpoints", "1k114apr40046ss7", "s-500")
    emascale(service, "checkpoints", "1k114apr40046ss7", "s-500", "--to", "other")

    assert files(here / "s-500") == files(here / "other") == SAVED


def test_what_is_there_is_written_over_by_force_alone(service: Answers, here: Path) -> None:
    kept = here / "ema.safetensors"
    kept.write_text("mine")

    refused = emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors")

    assert (refused.exit_code, kept.read_text()) == (2, "mine")
    assert refused.stderr == "ema.safetensors is there already; --force writes over it.\n"
    assert emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors", "--force").exit_code == 0
    assert kept.read_bytes() == b"average"


def test_a_place_that_cannot_be_written_is_named(service: Answers, here: Path) -> None:
    (here / "file").touch()

    refused = emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors", "--to", "file/weights")

    assert refused.exit_code == 2
    assert refused.stderr.startswith("file/weights cannot be written: ")


def test_a_storage_that_is_away_leaves_no_file(here: Path) -> None:
    away = Answers()
    away.add("GET", JOB, job_view())
    away.add("GET", f"{JOB}/artifacts", Page(items=[artifact("a", 1)]))
    away.add("GET", f"{JOB}/artifacts/a", Unavailable("The storage does not answer."))

    result = emascale(away, "artifacts", "1k114apr40046ss7", "a")

    assert (result.exit_code, result.stderr, files(here)) == (1, "The storage does not answer.\n", {})


@pytest.mark.parametrize(("command", "noun"), [("artifacts", "artifact"), ("checkpoints", "checkpoint")])
def test_one_that_there_is_not(service: Answers, command: str, noun: str) -> None:
    result = emascale(service, command, "1k114apr40046ss7", "other")

    assert (result.exit_code, result.stderr) == (1, f"The job has no {noun} 'other'.\n")


def test_a_name_or_all(service: Answers) -> None:
    assert emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors", "--all").exit_code == 2


def test_a_download_as_json_is_what_was_downloaded(service: Answers) -> None:
    told = json.loads(emascale(service, "artifacts", "1k114apr40046ss7", "ema.safetensors", "--json").stdout)

    assert [item["name"] for item in told["items"]] == ["ema.safetensors"]


def test_a_name_that_leads_elsewhere_is_refused(here: Path) -> None:
    service = Answers()
    service.add("GET", JOB, job_view())
    service.add("GET", f"{JOB}/artifacts", Page(items=[artifact("../a", 1)]))

    result = emascale(service, "artifacts", "1k114apr40046ss7", "--all", "--to", "out")

    assert result.exit_code == 2
    assert files(here) == {}


@given(st.text("ab./", max_size=12))
def test_a_file_never_leaves_its_folder(name: str) -> None:
    folder = Path("/folder")
    try:
        target = inside(folder, name)
    except InvalidRequest:
        return
    assert folder in target.parents
    assert str(target) == f"/folder/{name}"
