"""What happens: a trains, b arrives midway and goes first, a grows back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api_schemas.board import Board
from api_schemas.client import Client
from api_schemas.views import Artifact, JobView, Resize
from api_schemas.wording import share

ARRIVAL = 0.3
"""How much of a is done when b arrives."""
EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Result:
    """A job at its end, with every change of its size."""

    view: JobView
    resizes: Sequence[Resize]
    artifacts: Sequence[Artifact] = ()


def spec(name: str) -> dict[str, Any]:
    """The job file of that name."""
    loaded: dict[str, Any] = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text())
    return loaded


def clear(client: Client, sleep: Callable[[float], None]) -> None:
    """Remove what an earlier demo left; one that was cut off left jobs that would go on."""
    left = list(client.iter_jobs())
    for row in left:
        if not row.status.is_terminal:
            client.cancel(row.id)
    while not all(client.job(row.id).status.is_terminal for row in left):
        sleep(EVERY_S)
    for row in left:
        client.delete(row.id)


def play(client: Client, board: Board, sleep: Callable[[float], None]) -> list[Result]:
    """Both jobs, submitted, shown and ended. Without b where a ended before it could arrive."""
    board.add(client.submit(spec("a")))
    (first,) = board.refresh()
    while share(first.progress) < ARRIVAL and not first.status.is_terminal:
        sleep(EVERY_S)
        (first,) = board.refresh()
    if not first.status.is_terminal:
        board.add(client.submit(spec("b")))
    board.watch(every_s=EVERY_S, sleep=sleep)
    return [_result(client, view) for view in board.refresh()]


def _result(client: Client, view: JobView) -> Result:
    return Result(view=view, resizes=list(client.iter_resizes(view.id)), artifacts=client.artifacts(view.id).items)
