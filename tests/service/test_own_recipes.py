"""Recipes of the users' own are read by another process; a config that does not fit is refused at submit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from anyio.from_thread import BlockingPortal

from api_schemas.jobs import RecipeSpec
from api_schemas.views import RecipeInfo
from service.app import create_app
from service.own_recipes import Reader, Unreadable
from tests.service.world import ADDRESS, InProcess, World, pointers, problem, spec

SINE = "examples.own_recipe.sine:Sine"
ROOT = Path(__file__).parents[2]


def read(name: str, *py_modules: str) -> RecipeInfo:
    return Reader()(RecipeSpec(name=name, py_modules=py_modules))


@pytest.fixture
def reading(world: World, portal: BlockingPortal) -> Iterator[httpx.Client]:
    """The service, which reads recipes."""
    app = create_app(world.settings, world.database, read_recipe=Reader())
    with httpx.Client(transport=InProcess(app, portal), base_url=ADDRESS) as http:
        yield http


def test_a_recipe_describes_itself() -> None:
    info = read(SINE)
    assert (info.name, info.summary) == (SINE, "Fit a noisy sine.")
    assert info.config_schema["properties"]["width"]["minimum"] == 1


def test_a_recipe_in_a_package(tmp_path: Path) -> None:
    """As a zip, its contents in a folder, and as a wheel; what it prints is not taken for an answer."""
    source = (ROOT / "examples/own_recipe/sine.py").read_text() + "\n\nprint('hello')\n"
    for name, root in (("a.zip", "any/"), ("b.whl", "")):
        with ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{root}brought_{name[0]}.py", source)
        assert read(f"brought_{name[0]}:Sine", (tmp_path / name).as_uri()).summary == "Fit a noisy sine."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.at_all:It", "a module that is not on this node: nowhere"),
        ("examples.own_recipe.sine:Cosine", "has no 'Cosine'"),
        ("json:JSONDecoder", "is no recipe; it lacks"),
    ],
)
def test_why_one_cannot_be_read(name: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(name)


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"Packages cannot be read: .*missing\.zip"):
        read(SINE, (tmp_path / "missing.zip").as_uri())


def test_the_process_does_not_know_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMASCALE_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    module = (
        "import json, os\nfrom examples.own_recipe.sine import Sine\nSine.__doc__ = json.dumps(sorted(os.environ))\n"
    )
    with ZipFile(tmp_path / "telling.whl", "w") as archive:
        archive.writestr("telling.py", module)
    known = json.loads(read("telling:Sine", (tmp_path / "telling.whl").as_uri()).summary)
    assert {name for name in known if name.startswith(("EMASCALE_", "RAY_"))} == set()
    assert "PATH" in os.environ.keys() & set(known)


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "slow.whl", "w") as archive:
        archive.writestr("slow.py", "import time\ntime.sleep(600)\n")
    reader = Reader(patience_s=6)
    with pytest.raises(Unreadable, match="was not imported in 6 s"):
        reader(RecipeSpec(name="slow:It", py_modules=((tmp_path / "slow.whl").as_uri(),)))


def test_one_that_leaves_a_process_behind_does_not_keep_its_turn(tmp_path: Path) -> None:
    module = "import subprocess\nsubprocess.Popen(['sleep', '600'])\nfrom examples.own_recipe.sine import Sine\n"
    with ZipFile(tmp_path / "busy.whl", "w") as archive:
        archive.writestr("busy.py", module)
    with pytest.raises(Unreadable, match="was not imported in 8 s"):
        Reader(patience_s=8)(RecipeSpec(name="busy:Sine", py_modules=((tmp_path / "busy.whl").as_uri(),)))


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_config_that_does_not_fit_is_refused_at_submit(reading: httpx.Client, dry_run: str) -> None:
    body = spec(recipe={"name": SINE, "config": {"width": 0}})
    response = reading.post("/v1/jobs", json=body, params={"dry_run": dry_run})
    (wrong,) = pointers(response).items()
    assert wrong[0] == "/recipe/config/width"
    assert "minimum of 1" in wrong[1]


def test_it_is_told_where_the_rest_is_wrong_too(reading: httpx.Client) -> None:
    body = spec(recipe={"name": SINE, "config": {"width": 0}}, priority=5000)
    assert pointers(reading.post("/v1/jobs", json=body)).keys() == {"/priority", "/recipe/config/width"}


def test_one_that_cannot_be_read_is_left_to_the_nodes(reading: httpx.Client) -> None:
    body = spec(recipe={"name": "nowhere.at_all:It", "config": {"anything": 1}})
    assert reading.post("/v1/jobs", json=body).status_code == 201


def test_the_schema_over_http(reading: httpx.Client, world: World) -> None:
    assert reading.get(f"/v1/recipes/{SINE}").json()["config_schema"]["title"] == "Config"
    missing = problem(reading.get("/v1/recipes/nowhere.at_all:It"), 404, "not_found")
    assert "nowhere" in missing["detail"]
    assert "catalogue" in problem(reading.get("/v1/recipes/classify"), 404, "not_found")["detail"]
    wrong = problem(reading.get(f"/v1/recipes/{SINE}", params={"py_modules": "shapes"}), 422, "invalid_request")
    assert "Must be the URL of a .zip or .whl file" in wrong["detail"]
    problem(world.http.get(f"/v1/recipes/{SINE}"), 404, "not_found")  # this service reads none
