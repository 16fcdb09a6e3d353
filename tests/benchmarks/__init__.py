"""Measurements, each a command: `./run bench NAME`. What was measured is in BENCHMARKS.md."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODELS = {"0.26 M": (280, 4), "26 M": (2932, 4), "86 M": (3780, 7)}
"""Hidden width and depth of the MLPs (workers/recipes/classify.py), by their number of parameters."""


def parameters(model: str) -> int:
    """Of an MLP of MODELS."""
    hidden, depth = MODELS[model]
    return (64 + 1) * hidden + (depth - 1) * (hidden + 1) * hidden + 10 * (hidden + 1)


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median and range, rounded."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def say(row: Any) -> None:
    """Show a row as soon as it is there."""
    print(json.dumps(row), file=sys.stderr, flush=True)


def finish(result: dict[str, Any], output: Path | None) -> None:
    """Print the result, and write it where it was asked for."""
    text = json.dumps(result, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n")
