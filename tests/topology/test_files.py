"""The files of the deployment, as far as they can be checked without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.head import NODE_ENVIRONMENT
from service.settings import Settings
from tests.topology.images import IMAGES, ROOT, Image, copied

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
ROLES = ROOT / "deploy/roles"
SCRIPTS = [ROOT / "run", ROOT / ".ci/run", ROOT / "deploy/make-env", IMAGES / "install", *sorted(ROLES.iterdir())]
SECRETS = ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def checked(*command: str | Path) -> None:
    """That a program of this Python's folder finds nothing wrong."""
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(dockerfile: Path) -> None:
    checked("hadolint", dockerfile)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_linted(script: Path) -> None:
    checked("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", script)


@pytest.mark.parametrize("file", [COMPOSE, ROOT / "deploy/compose.cuda.yml"], ids=lambda path: path.name)
def test_compose_files_follow_the_schema_of_the_compose_specification(file: Path) -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


@pytest.mark.parametrize("name", ["service", "worker"])
def test_what_an_image_copies_is_there_and_let_in(name: str) -> None:
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    text = (IMAGES / f"{name}.Dockerfile").read_text()
    sources = {word for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for word in line.split()}
    assert copied(name)
    for source in sources:
        assert (ROOT / source).exists()
        assert source in let_in


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_somebody_else_than_root_with_a_health_check(dockerfile: Path) -> None:
    last = dockerfile.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    (role,) = re.findall(r'^CMD \["deploy/roles/(\w+)"\]$', last, re.MULTILINE)
    assert f'CMD ["deploy/roles/healthy", "{role}"]' in last


def test_every_image_is_pinned(services: dict[str, dict[str, Any]]) -> None:
    bases = [base for file in DOCKERFILES for base in re.findall(r"^ARG PYTHON=(\S+)$", file.read_text(), re.MULTILINE)]
    others = [service["image"].partition(":")[2] for service in services.values() if "build" not in service]
    assert len(bases) == len(DOCKERFILES)
    for tag in [*bases, *others]:
        assert re.match(r"\d+\.\d+", tag), tag


def test_every_service_has_a_health_check_and_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or "build" in service, name


def test_users_code_does_not_reach_the_database(services: dict[str, dict[str, Any]]) -> None:
    assert services["postgres"]["networks"] == ["database"]
    assert "database" not in services["worker"]["networks"] + services["head"]["networks"]
    assert not [name for name in services["worker"]["environment"] if "DATABASE" in name or "POSTGRES" in name]


def test_no_secret_has_a_default() -> None:
    used = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text())
    assert {name for name, rest in used if rest.startswith(":?")} == set(SECRETS)
    assert not [rest for name, rest in used if name in SECRETS and not rest.startswith(":?")]


def test_every_setting_of_the_service_is_one(services: dict[str, dict[str, Any]]) -> None:
    given = {name for name in services["service"]["environment"] if name.startswith("EMASCALE_")}
    assert given <= {f"EMASCALE_{name}".upper() for name in Settings.model_fields}


def test_a_worker_is_given_longer_than_its_notice(services: dict[str, dict[str, Any]]) -> None:
    worker = services["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > worker["environment"]["EMASCALE_GRACE_S"] + 15


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = Path(shutil.copy(ROOT / "deploy/make-env", tmp_path / "deploy"))
    subprocess.run([script], check=True, capture_output=True)
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if "=" in line)
    secrets = [made[name] for name in SECRETS]
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)
    assert len(set(secrets)) == len(secrets)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    used = {name for name, _ in re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text())}
    assert made.keys() == used
    again = subprocess.run([script], capture_output=True, text=True)
    assert again.returncode == 1
    assert "there already" in again.stderr


@pytest.mark.parametrize("role", ["head", "worker", "service"])
@pytest.mark.parametrize(
    ("given", "named"),
    [({}, "EMASCALE_RAY_ADDRESS"), ({"EMASCALE_RAY_ADDRESS": "head:6379"}, "RAY_AUTH_TOKEN")],
    ids=["no head", "no token"],
)
def test_a_role_without_what_it_needs_says_so(role: str, given: dict[str, str], named: str) -> None:
    done = subprocess.run([ROLES / role], env={"PATH": os.defpath, **given}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{role}: {named}")
    assert len(done.stderr.splitlines()) == 1


def test_nodes_in_containers_and_on_one_machine_are_alike() -> None:
    given = {"PATH": os.defpath, "EMASCALE_RAY_ADDRESS": "head:6379", "RAY_AUTH_TOKEN": "any"}
    said = subprocess.run(["bash", "-c", f"source {ROLES}/node.sh && env"], env=given, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert {f"{name}={value}" for name, value in NODE_ENVIRONMENT.items()} <= set(said.stdout.splitlines())


@pytest.mark.parametrize("role", ["head", "worker", "service"])
def test_where_nobody_answers_a_role_is_not_healthy(role: str) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    nobody = {"EMASCALE_RAY_ADDRESS": "127.0.0.1:1", "EMASCALE_PORT": "1"}
    done = subprocess.run([ROLES / "healthy", role], env=environment | nobody, capture_output=True)
    assert done.returncode == 1


def test_the_image_of_the_service_has_no_torch(images: dict[str, Image]) -> None:
    image = images["service"]
    listed = subprocess.run([image.python / "python", "-m", "pip", "list"], capture_output=True, text=True, check=True)
    assert "\nray " in listed.stdout
    assert "\ntorch " not in listed.stdout
    checked_in = [image.python / "python", "-c", "import service.app, service.reconciler, service.cluster"]
    subprocess.run(checked_in, env=image.environment(), cwd="/", check=True)
