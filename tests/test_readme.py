"""What README.md tells a reader to type works: commands, requests and code run against a service."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch
import yaml
from typer.testing import CliRunner

from api_schemas.cli import app as command
from api_schemas.client import DEFAULT_URL, Client
from api_schemas.jobs import JobSpec
from api_schemas.views import RecipeInfo
from service.app import create_app
from service.db import Database
from service.roster import Roster
from service.settings import Settings
from tests.databases import fresh_database
from tests.service.world import Controller, finished, started
from tests.serving import served
from workers import recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lines(text: str) -> list[list[str]]:
    """What is typed in a document, word by word."""
    shown = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [words for block in shown for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def typed(program: str) -> list[list[str]]:
    return [line for line in lines(README) if line[0] == program]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_database(Settings(data_folder=tmp_path).database_url) as database:
        yield database


@pytest.fixture
def address(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a service that EMASCALE_URL names; the present folder holds the job file."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(blocks("yaml")[0])
    with served(create_app(Settings(data_folder=tmp_path), database)) as address:
        monkeypatch.setenv("EMASCALE_URL", address)
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
def catalogue(database: Database) -> None:
    """As the nodes exported it."""
    Roster(database).write_recipes(RecipeInfo.model_validate(row) for row in recipes.catalogue())


@pytest.fixture
def job(client: Client, database: Database) -> str:
    """A job that runs on 4 workers."""
    job = client.submit(yaml.safe_load(blocks("yaml")[0])).id
    Controller.launch(database, job).report(started(workers=4))
    return job


def end(database: Database, job: str) -> None:
    Controller.launch(database, job).report(finished("succeeded"))


def leave_weights(job: str) -> None:
    """As its workers would, below the present folder."""
    folder = Path("jobs", job, "artifacts")
    folder.mkdir(parents=True)
    for name in ("model", "ema"):
        (folder / f"{name}.safetensors").touch()


def test_it_begins_with_the_two_commands() -> None:
    assert [line[1] for line in typed("./run")][:2] == ["demo", "test"]


def test_every_run_command_exists() -> None:
    known = subprocess.run([ROOT / "run", "help"], capture_output=True, text=True, check=True).stdout
    for line in typed("./run"):
        assert f"./run {line[1]} " in known
    for name in re.findall(r"`\./run (\w+)`", README):
        assert f"./run {name} " in known


@pytest.mark.parametrize("line", typed("emascale"), ids=shlex.join)
@pytest.mark.usefixtures("catalogue")
def test_the_command_line(client: Client, database: Database, job: str, line: list[str]) -> None:
    arguments = [job[:-1] if part == "ID" else part for part in line[1:]]
    if "--watch" in arguments:
        arguments.remove("--watch")
    if "--follow" in arguments or arguments[0] in ("watch", "artifacts", "delete"):
        end(database, job)
    leave_weights(job)

    result = CliRunner().invoke(command, arguments, obj=lambda _: client, input="y\n")

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", typed("curl"), ids=lambda line: line[-1].removeprefix(DEFAULT_URL))
def test_the_requests(address: str, database: Database, job: str, line: list[str]) -> None:
    *options, url = (part.replace("ID", job) for part in line[1:])
    headers, body, method = {}, None, "GET"
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-H":
            headers |= dict([value.split(": ")])
        elif option == "--data-binary":
            body, method = Path(value.removeprefix("@")).read_text(), "POST"
        elif option == "--json":
            headers |= {"Content-Type": "application/json"}
            body, method = value, "POST"
        elif option == "-X":
            method = value
        else:
            assert option == "-o"
    if headers.get("Accept") == "text/event-stream" or method == "DELETE":
        end(database, job)
    leave_weights(job)

    answer = httpx.request(method, url.replace(DEFAULT_URL, address), headers=headers, content=body)

    assert answer.is_success, answer.text


@pytest.mark.usefixtures("address")
def test_the_code(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    code, _ = blocks("python")
    before, line, after = code.partition("    print(client.wait")
    assert line
    exec(before, names)
    end(database, names["job"].id)
    leave_weights(names["job"].id)
    exec("with Client() as client:\n" + line + after, names)

    assert re.fullmatch(r"\S+ -> \S+\nNone\n", capsys.readouterr().out), "a played job has no evaluation"


def test_the_weights_go_into_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the model of the job above: as the trainer makes it, and exported as its archive does."""
    monkeypatch.chdir(tmp_path)
    spec = JobSpec.model_validate(yaml.safe_load(blocks("yaml")[0]))
    recipe = recipes.load(spec.recipe.name)
    weights = recipe(recipe.Config.model_validate(spec.recipe.config), seed=7).model().state_dict()
    safetensors.torch.save_file(weights, "ema.safetensors")
    names: dict[str, Any] = {}

    exec(blocks("python")[1], names)

    assert names["recipe"].Config(**spec.recipe.config) == names["task"]._config
    loaded = names["model"].state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_what_is_to_be_typed_for_security_is_the_same() -> None:
    commands = lines((ROOT / "SECURITY.md").read_text())
    assert commands
    assert [line for line in commands if line not in lines(README)] == []


def test_every_place_on_the_map_exists() -> None:
    for place in re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE):
        assert (ROOT / place).exists(), place
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link


def test_every_place_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text())

    assert len(named) > 10
    for place in named:
        assert (ROOT / place).exists() or (ROOT / "api_schemas" / place).exists(), place
