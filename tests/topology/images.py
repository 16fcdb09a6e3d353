"""What an image holds, laid out without a container engine: the files that its Dockerfile copies, and its Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy/images"


@dataclass(frozen=True)
class Image:
    """A laid out image."""

    app: Path  # its /app
    python: Path  # the folder of its commands

    def environment(self) -> dict[str, str]:
        """That of the Dockerfile, as far as paths go."""
        return {"PATH": f"{self.python}:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(self.app)}

    def role(self, name: str) -> list[str]:
        return [str(self.app / "deploy/roles" / name)]


def laid_out(name: str, folder: Path, python: Path) -> Image:
    """The files of an image in the folder, run by this Python."""
    left_out = shutil.ignore_patterns("__pycache__", "ui")
    for source, target in copied(name):
        shutil.copytree(ROOT / source, folder / target, ignore=left_out)
    return Image(folder, python)


def copied(name: str) -> list[tuple[str, str]]:
    """What the last stage of a Dockerfile copies out of the checkout, and where to."""
    last = (IMAGES / f"{name}.Dockerfile").read_text().rpartition("\nFROM ")[2]
    return re.findall(r"^COPY ([a-z]\S*) (\S+)$", last, re.MULTILINE)


def installed(group: str, folder: Path) -> Path:
    """The Python of an image, made as the Dockerfile makes it; the folder of its commands."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{here()}:{os.defpath}"
    done = subprocess.run([IMAGES / "install", group, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def here() -> Path:
    """The commands of the Python that runs the tests."""
    return Path(sys.executable).parent
