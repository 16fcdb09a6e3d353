"""The script `./run`, on machines that have more or less of a Python: the Pythons here only write down their calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("bash", "basename", "cat", "chmod", "cksum", "cp", "dirname", "env", "find", "mkdir", "rm", "sort", "tr")
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
    -VV) echo "Python 3.11.2" ;;
    *"version_info"*) exit {too_old} ;;
    *"import ensurepip"*) exit {no_venv} ;;
    "-m venv --clear"*) rm -rf "$4"; mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    *"pip"*"$FAILING"*) exit 1 ;;
esac
"""


@dataclass
class Machine:
    """A checkout, and all that is on the PATH."""

    folder: Path

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def install(self, name: str, *, too_old: bool = False, no_venv: bool = False) -> None:
        python = self.folder / "bin" / name
        python.write_text(PYTHON.format(too_old=int(too_old), no_venv=int(no_venv)))
        python.chmod(0o755)

    def run(self, *arguments: str, failing: str = "nothing") -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").write_text("")
        variables = {"PATH": str(self.folder / "bin"), "CALLS": str(self.folder / "calls"), "FAILING": failing}
        command = [self.checkout / "run", *arguments]
        return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=False)

    def calls(self, part: str) -> list[str]:
        """What the last run asked a Python for."""
        return [call for call in (self.folder / "calls").read_text().splitlines() if part in call]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    machine.checkout.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is part of every machine"
        (tmp_path / "bin" / tool).symlink_to(found)
    for file in ("run", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, machine.checkout)
    return machine


def test_no_python_is_one_sentence(machine: Machine) -> None:
    machine.install("python3", too_old=True)

    done = machine.run("test")

    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "apt install python3.11" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_python_without_venv_is_one_sentence(machine: Machine) -> None:
    machine.install("python3.12", no_venv=True)

    done = machine.run("test")

    assert done.returncode == 1
    assert "python3.12 has no venv module" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_the_newest_known_python_is_taken(machine: Machine) -> None:
    machine.install("python3", too_old=True)
    machine.install("python3.11")

    assert machine.run("test", "-q").returncode == 0
    assert machine.calls("-m venv") == [f"-m venv --clear {machine.checkout}/.venv"]
    assert machine.calls("-m pytest") == ["-m pytest -q"]


def test_what_is_installed_is_not_installed_again(machine: Machine) -> None:
    machine.install("python3.11")
    assert machine.run("test").returncode == 0
    (install,) = machine.calls("-e .")
    assert "-c constraints.txt" in install
    assert all(f"--group {group}" in install for group in ("service", "workers", "dev"))

    again = machine.run("serve", "--port", "0")

    assert (again.returncode, again.stderr) == (0, "")
    assert machine.calls("pip") == []
    assert machine.calls("-m service") == ["-m service serve --port 0"]


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_needed_installs(machine: Machine, file: str) -> None:
    machine.install("python3.11")
    machine.run("test")
    with (machine.checkout / file).open("a") as changed:
        changed.write("# changed\n")

    machine.run("test")

    assert len(machine.calls("-e .")) == 1
    assert machine.calls("-m venv") == [], "the environment itself is kept"


@pytest.mark.parametrize("step", ["pip>=25.1", "-e ."])
def test_an_install_that_breaks_off_starts_over(machine: Machine, step: str) -> None:
    machine.install("python3.11")

    broken = machine.run("test", failing=step)
    assert broken.returncode != 0
    assert machine.calls("-m pytest") == []

    assert machine.run("test").returncode == 0
    assert len(machine.calls("-e .")) == 1
    assert len(machine.calls("-m pytest")) == 1


def test_a_half_made_environment_is_made_anew(machine: Machine) -> None:
    machine.install("python3.11")
    (machine.checkout / ".venv/bin").mkdir(parents=True)
    (machine.checkout / ".venv/bin/python").write_text("")

    assert machine.run("test").returncode == 0
    assert len(machine.calls("-m venv")) == 1


def test_help_names_every_command_and_needs_no_python(machine: Machine) -> None:
    done = machine.run("help")

    assert done.returncode == 0
    named = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("./run")}
    assert named == {"demo", "serve", "test", "lint", "bench", "help"}
    assert machine.run().stdout == done.stdout


def test_an_unknown_command_and_benchmark(machine: Machine) -> None:
    machine.install("python3.11")

    assert (machine.run("nonsense").returncode, machine.run("nonsense").stdout) == (1, "")
    assert machine.run("bench", "../../x").stderr.endswith("Which benchmark? There are: none yet\n")
    (machine.checkout / "tests/benchmarks").mkdir(parents=True)
    for name in ("b", "a", "__init__"):
        (machine.checkout / f"tests/benchmarks/{name}.py").touch()
    assert machine.run("bench").stderr == "Which benchmark? There are: a b \n"
    assert machine.run("bench", "a", "x").returncode == 0
    assert machine.calls("tests.benchmarks") == ["-m tests.benchmarks.a x"]


def test_the_checkout_comes_first(machine: Machine) -> None:
    machine.install("python3.11")
    machine.run("test")
    (machine.checkout / ".venv/bin/python").write_text('#!/usr/bin/env bash\necho "path $PYTHONPATH, folder $PWD"\n')
    (machine.checkout / ".venv/.installed").unlink()
    machine.run("test")

    shown = machine.run("demo").stdout

    assert f"path {machine.checkout}, folder {machine.checkout}" in shown


def test_what_ci_runs_needs_no_input() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert "./run lint" in lines
    assert lines[-1].startswith("./run test --complete")
