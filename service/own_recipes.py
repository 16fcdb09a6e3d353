"""Recipes of the users' own: a process apart imports them and tells what they ask for. Nothing of them runs here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from threading import BoundedSemaphore

from pydantic import ValidationError

from api_schemas.jobs import RecipeSpec
from api_schemas.views import RecipeInfo

logger = logging.getLogger(__name__)

SECRET = ("EMASCALE_", "RAY_")
"""How the names of environment variables begin that are none of a recipe's business: the database and the cluster."""

REASON = 500
"""Characters of what a process says when it fails, from the end."""


class Unreadable(Exception):
    """The recipe cannot be looked at from here; the reason as a sentence. On the nodes it may be there all the same."""


class Reader:
    """Reads recipes, a few at a time: each costs a process that imports torch."""

    def __init__(self, *, patience_s: float = 30.0, at_once: int = 2) -> None:
        self._patience_s = patience_s
        self._turns = BoundedSemaphore(at_once)

    def __call__(self, recipe: RecipeSpec) -> RecipeInfo:
        """Its summary and the schema of its config. Raises Unreadable."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise Unreadable("Too many recipes are being read.")
        try:
            return self._read(recipe)
        finally:
            self._turns.release()

    def _read(self, recipe: RecipeSpec) -> RecipeInfo:
        command = [sys.executable, "-m", "workers.recipes", recipe.name, *recipe.py_modules]
        known = {name: value for name, value in os.environ.items() if not name.startswith(SECRET)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=known, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
        with process:
            try:
                said, complaint = process.communicate(timeout=self._patience_s)
            except subprocess.TimeoutExpired as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it has started, which may hold the pipes
                raise Unreadable(f"Recipe {recipe.name!r} was not imported in {self._patience_s:g} s.") from error
        if process.returncode:
            raise Unreadable(complaint.decode(errors="replace").strip()[-REASON:])
        try:
            return RecipeInfo.model_validate_json(said)
        except ValidationError as error:  # it wrote to the file descriptor itself
            raise Unreadable(f"Recipe {recipe.name!r} does not describe itself.") from error
