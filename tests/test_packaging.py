"""What is published: the wheel holds the contract alone, and works where nothing else is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
SERVER_SIDE = {"torch", "ray", "fastapi", "starlette", "sqlmodel", "sqlalchemy", "numpy", "service", "workers"}
JOBS = {"items": [], "next": None}


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What the command prints; it sees neither the checkout nor the environment's packages."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EMASCALE_"))}
    done = subprocess.run(command, cwd=cwd, env=inherited | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=True)
    pip = (folder / "bin/python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return folder / "bin"


@pytest.fixture
def address() -> Iterator[str]:
    """A server that knows one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(JOBS).encode()
            self.send_response(200 if self.path.startswith("/v1/jobs") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_wheel_holds_the_contract_alone(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"api_schemas"}
    assert "api_schemas/scaling/__init__.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_works_alone(alone: Path, address: str, tmp_path: Path) -> None:
    assert "submit" in run(alone / "emascale", "--help", cwd=tmp_path)
    assert json.loads(run(alone / "emascale", "--url", address, "list", "--json", cwd=tmp_path)) == JOBS
    call = "from api_schemas import Client; print(Client().jobs().items)"
    assert run(alone / "python", "-c", call, cwd=tmp_path, EMASCALE_URL=address) == "[]\n"


def test_nothing_of_the_server_side_comes_along(alone: Path, tmp_path: Path) -> None:
    listed = json.loads(run(alone / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path))

    assert not SERVER_SIDE & {package["name"].lower() for package in listed}


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "api_schemas").rglob("*.py")
)


@pytest.mark.parametrize("modules", [["api_schemas"], MODULES], ids=["package", "all of it"])
def test_importing_the_contract_loads_nothing_heavy(modules: list[str], tmp_path: Path) -> None:
    script = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(ROOT))))

    assert "api_schemas" in loaded
    assert not SERVER_SIDE & loaded


def test_the_contract_needs_no_http_library(tmp_path: Path) -> None:
    script = "import sys, api_schemas.jobs, api_schemas.events; sys.exit('httpx' in sys.modules)"
    run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(ROOT))
