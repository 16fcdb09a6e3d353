"""Looks that many share: who asks for the same gets one answer, and an outage ends nothing."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from functools import partial

import pytest

import service.looks
from api_schemas.errors import Unavailable
from service.looks import Looks, repeated


class Desk:
    """What reads, as slowly as the test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = threading.Event()

    def at(self, looks: Looks[str], name: str) -> asyncio.Future[str]:
        return asyncio.ensure_future(looks.at(name, partial(self.look, name)))

    def look(self, name: str) -> str:
        self.asked.append(name)
        assert self.open.wait(10)
        if name == "away":
            raise Unavailable(name)
        return name.upper()


def together(desk: Desk, *names: str) -> list[str | BaseException]:
    """What those are answered who ask for these at once."""

    async def ask() -> list[str | BaseException]:
        looks: Looks[str] = Looks()
        asked = [desk.at(looks, name) for name in names]
        await asyncio.sleep(0)
        desk.open.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_who_asks_for_the_same_shares_the_look_at_it() -> None:
    desk = Desk()
    assert together(desk, "a", "b", "a", "a") == ["A", "B", "A", "A"]
    assert sorted(desk.asked) == ["a", "b"]


def test_a_look_that_fails_fails_for_those_alone_who_asked_for_the_same() -> None:
    away, other, again = together(Desk(), "away", "b", "away")
    assert (type(away), other, type(again)) == (Unavailable, "B", Unavailable)


def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    async def ask() -> tuple[str, list[str]]:
        desk, looks = Desk(), Looks[str]()
        leaves, stays = (desk.at(looks, "a") for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        desk.open.set()
        found = await stays
        await desk.at(looks, "a")
        return found, desk.asked

    found, asked = asyncio.run(ask())
    assert found == "A"
    assert asked == ["a", "a"], "the next one looks anew"


def test_an_outage_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.looks, "OUTAGE_POLL_S", 0.01)
    answers: list[str | None] = ["a", None, None, "b"]

    async def look() -> str:
        answer = answers.pop(0)
        if answer is None:
            raise Unavailable("away")
        return answer

    async def hear() -> list[str]:
        found: list[str] = []
        async with aclosing(repeated(look, 0.01)) as finds:
            async for each in finds:
                found.append(each)
                if len(found) == 2:
                    break
        return found

    assert asyncio.run(hear()) == ["a", "b"]
