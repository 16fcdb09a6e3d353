"""What one listener is told of a job's view, by a clock of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api_schemas.errors import EmascaleError, NotFound, Unavailable
from service.standing import EVERY_S, Standing


class Source:
    """A job and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.revision = 1
        self.view: dict[str, Any] = {"revision": 1, "workers": 0, "values": {}, "evaluation": None}
        self.error: EmascaleError | None = None
        self.standing = Standing(self._read, lambda: self.now)

    async def _read(self) -> tuple[int, bytes]:
        if self.error:
            raise self.error
        return self.revision, json.dumps(self.view).encode()

    def change(self, **fields: Any) -> None:
        self.revision += 1
        self.view |= fields | {"revision": self.revision}

    def news(self) -> dict[str, Any] | None:
        """What is told; None: nothing."""
        text = asyncio.run(self.standing.news()).decode()
        assert not text or text.startswith("event: view\n")
        return json.loads(text.partition("data: ")[2]) if text else None

    def due_s(self) -> float | None:
        return self.standing.due_s(self.revision)


@pytest.fixture
def source() -> Source:
    return Source()


def test_the_whole_is_due_at_once(source: Source) -> None:
    assert source.due_s() == 0
    assert source.news() == source.view
    assert source.due_s() is None


def test_only_new_fields_are_told_and_each_is_whole(source: Source) -> None:
    source.news()
    source.change(values={"lr": 0.1, "weight_decay": 0.0})
    assert source.news() == {"revision": 2, "values": {"lr": 0.1, "weight_decay": 0.0}}
    source.change(values={"lr": 0.2})
    assert source.news() == {"revision": 3, "values": {"lr": 0.2}}
    source.change(evaluation={"ema": {}})
    source.change(evaluation=None)
    assert source.news() == {"revision": 5}
    assert source.news() is None


def test_progress_alone_is_told_once_in_a_while(source: Source) -> None:
    source.news()
    source.change(workers=1)
    assert source.due_s() == EVERY_S
    source.now += EVERY_S / 4
    assert source.due_s() == pytest.approx(EVERY_S * 3 / 4)
    source.now += EVERY_S
    assert source.due_s() == 0


@pytest.mark.parametrize("error", [Unavailable("away"), NotFound("none")])
def test_what_cannot_be_read_is_told_later(source: Source, error: EmascaleError) -> None:
    source.news()
    source.change(workers=3)
    source.error = error
    assert source.news() is None
    assert source.due_s() is not None
    source.error = None
    assert source.news() == {"revision": 2, "workers": 3}
