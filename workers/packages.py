"""The packages that a job brings along for its recipe."""

from __future__ import annotations

from typing import Any

from api_schemas.exchange import Launch


def own_modules(launch: Launch) -> dict[str, Any]:
    """Ray's options for workers that have the user's packages on their path; none where there are none."""
    modules = list(launch.spec.recipe.py_modules)
    return {"runtime_env": {"py_modules": modules}} if modules else {}
