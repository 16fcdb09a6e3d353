"""A recipe's row of the catalogue as JSON on stdout: `python -m workers.recipes package.module:Class [URL...]`.

The service asks a process like this one for the schema of a recipe that is not its own. That keeps what the recipe
imports out of the service; it is no security boundary: the user's code runs here, as the user who serves.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import fsspec

from api_schemas.errors import EmascaleError
from workers import recipes


def main(name: str, *urls: str) -> int:
    """The exit code: 0, or 1 with the reason on stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
            sys.path[:0] = [unpack(url, Path(folder) / str(number)) for number, url in enumerate(urls)]
            row = recipes.row(name)
    except EmascaleError as error:
        print(error.detail, file=sys.stderr)
        return 1
    except (OSError, ValueError, BadZipFile, ImportError) as error:  # what fsspec says of an URL that is none
        print(f"Packages cannot be read: {error}", file=sys.stderr)
        return 1
    print(json.dumps(row))
    return 0


def unpack(url: str, folder: Path) -> str:
    """What goes on the path, as Ray puts it on the workers': a wheel, or what is in the one folder of a zip."""
    with fsspec.open(url, "rb") as file, ZipFile(file) as archive:
        archive.extractall(folder)
    inside: Sequence[Path] = list(folder.iterdir())
    alone = url.endswith(".zip") and len(inside) == 1 and inside[0].is_dir()
    return str(inside[0] if alone else folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
