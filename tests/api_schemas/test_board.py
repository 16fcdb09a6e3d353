from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from api_schemas.board import Board
from api_schemas.events import Event
from api_schemas.picture import Picture, number
from api_schemas.views import Phase
from tests.api_schemas.answers import story


def after(*told: Event) -> Picture:
    picture = Picture(name="digits")
    for event in told:
        picture = picture.after(event)
    return picture


def test_a_picture_follows_the_story() -> None:
    midway = after(*story()[:5])
    assert (midway.workers, midway.kappa, midway.loss, midway.share) == (4, 4.0, 1.5, 0.5)
    assert midway.values == {"lr": 0.39, "ema_momentum": 0.96059601}
    resized = after(*story()[:6])
    assert (resized.workers, resized.kappa, resized.values["lr"]) == (2, 2.0, 0.2)
    end = after(*story())
    assert (end.phase, end.workers, end.share) == (Phase.SUCCEEDED, 0, 1.0)


def test_a_terminal_shows_both_jobs_and_what_happened() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=160, markup=False, highlight=False)
    with Board(console) as board:
        board.add("abc123", "first")
        board.add("def456", "second")
        for event in story()[:6] + story("def456")[:3]:
            board.hear(event)
    shown = console.file.getvalue()  # type: ignore[attr-defined]

    assert "first" in shown
    assert "second" in shown
    assert "Made room [for b]." not in shown, "the reason belongs to the announcement"
    assert "4 -> 2 workers" in shown
    assert shown.count("\x1b[?25h") == 1, "the cursor comes back"


def test_plain_output_has_a_line_for_each_tenth() -> None:
    console = Console(file=StringIO(), width=160)
    started, committed = story()[2], story()[4]
    with Board(console) as board:
        board.add("abc123", "first")
        board.hear(started)
        for stop in range(100, 16001, 100):
            board.hear(committed.model_copy(update={"start": stop - 100, "stop": stop}))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert len(lines) == 1 + 10
    assert "100%" in lines[-1]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.123456, "0.1235"), (12, "12"), ([0.9, 0.999], "0.9, 0.999"), (True, "True")]
)
def test_numbers(value: Any, text: str) -> None:
    assert number(value) == text
