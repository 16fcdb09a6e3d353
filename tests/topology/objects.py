"""The store of objects that docker-compose.yml names, of the same version, as a process."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from service.processes import Process, end_session, wait_until
from tests.topology.hosts import ENDING_WITH_US
from tests.topology.images import ROOT

PATIENCE_S = 60
PORT = 8333


@contextmanager
def object_store(ip: str, folder: Path) -> Iterator[dict[str, str]]:
    """Started as docker-compose.yml says, at this address; the environment variables by which it is used."""
    folder.mkdir()
    keys = {"AWS_ACCESS_KEY_ID": secrets.token_hex(12), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24)}
    with (folder.parent / "objects.log").open("wb") as log:
        started = subprocess.Popen(
            [*ENDING_WITH_US, _weed(), *_command(ip, folder)],
            env={"HOME": str(folder), **keys},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    leader = Process.of(started.pid)
    assert leader is not None
    try:
        assert wait_until(lambda: _healthy(ip), PATIENCE_S), (folder.parent / "objects.log").read_text()
        yield {**keys, "AWS_ENDPOINT_URL": f"http://{ip}:{PORT}", "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        end_session(leader)
        started.wait(PATIENCE_S)


def _command(ip: str, folder: Path) -> list[str]:
    """That of docker-compose.yml, but for the address and the folder."""
    words: list[str] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["objects"]["command"]
    own = {"-dir": f"-dir={folder}", "-ip": f"-ip={ip}", "-ip.bind": f"-ip.bind={ip}"}
    return [own.get(word.partition("=")[0], word) for word in words]


def _healthy(ip: str) -> bool:
    """What docker-compose.yml asks."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    url = re.sub(r"127\.0\.0\.1", ip, services["objects"]["healthcheck"]["test"][-1])
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def _weed() -> str:
    found = shutil.which("weed", path=Path(sys.executable).parent)
    assert found is not None, "the dev group of pyproject.toml brings it"
    return found
