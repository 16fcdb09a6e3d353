"""A page of jobs as it changes, over a real connection: rows that changed, and the order where it did."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from api_schemas.errors import Unavailable
from api_schemas.stream import Message, lines, messages
from service.changes import OVERLAP, Looks
from service.jobs import JobQuery, Listing
from tests.service.world import World, committed, pointers

LIVE = {"Accept": "text/event-stream"}


@contextmanager
def listening(wire: httpx.Client, query: str = "", **headers: str) -> Iterator[Iterator[Message]]:
    with wire.stream("GET", f"/v1/jobs{query}", headers=LIVE | headers) as response:
        assert response.status_code == 200
        yield messages(lines(response.iter_text()))


def news(stream: Iterator[Message]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(next(stream).data)
    return told


def ids(told: dict[str, Any]) -> list[str]:
    return [row["id"] for row in told["items"]]


def test_it_begins_with_the_page(world: World, wire: httpx.Client) -> None:
    world.submit()
    world.submit()
    page = world.get("/v1/jobs")
    with listening(wire) as stream:
        told = news(stream)
    assert told == page | {"ids": [row["id"] for row in page["items"]]}


def test_a_change_is_the_row_alone(world: World, wire: httpx.Client) -> None:
    world.submit()
    controller = world.run()
    with listening(wire) as stream:
        news(stream)
        controller.report(committed(0, 640))
        told = news(stream)
    assert told["ids"] is None
    assert [(row["id"], row["progress"]["samples"]) for row in told["items"]] == [(controller.job, 640)]


def test_a_new_job_comes_with_the_new_order(world: World, wire: httpx.Client) -> None:
    first = world.submit()
    with listening(wire) as stream:
        news(stream)
        second = world.submit()
        told = news(stream)
    assert (ids(told), told["ids"]) == ([second], [second, first])


def test_what_leaves_the_page_is_missing_in_the_order(world: World, wire: httpx.Client) -> None:
    first, second = world.submit(), world.submit()
    with listening(wire, "?status=queued") as stream:
        assert news(stream)["ids"] == [second, first]
        world.http.post(f"/v1/jobs/{second}/cancel")
        assert news(stream) == {"items": [], "ids": [first], "next": None}
        world.lose(first)
        assert news(stream) == {"items": [], "ids": [], "next": None}


def test_resumed_it_says_what_changed_meanwhile(world: World, wire: httpx.Client) -> None:
    quiet, busy, lost = world.submit(), world.submit(), world.submit()
    world.clock.move(60)
    with listening(wire) as stream:
        heard = next(stream).id
    world.clock.move(60)
    world.http.patch(f"/v1/jobs/{busy}", json={"priority": 3})
    world.lose(lost)
    with listening(wire, **{"Last-Event-ID": heard}) as stream:
        told = news(stream)
    assert (ids(told), told["ids"]) == ([busy], [busy, quiet])


def test_resumed_it_looks_a_little_behind_its_cursor(world: World, wire: httpx.Client) -> None:
    """What was being committed while the page was read may be dated before."""
    job = world.submit()
    world.clock.move(OVERLAP.total_seconds() / 2)
    with listening(wire) as stream:
        heard = next(stream).id
    with listening(wire, **{"Last-Event-ID": heard}) as stream:
        assert ids(news(stream)) == [job]


@pytest.mark.parametrize("cursor", ["99999999999999", "999999999999999999"])
def test_a_cursor_from_the_future_is_now(world: World, wire: httpx.Client, cursor: str) -> None:
    job = world.submit()
    with listening(wire, **{"Last-Event-ID": cursor}) as stream:
        assert news(stream)["ids"] == [job]


def test_a_page_further_back_is_live_too(world: World, wire: httpx.Client) -> None:
    jobs = [world.submit() for _ in range(3)]
    with listening(wire, f"?limit=1&after={jobs[2]}") as stream:
        told = news(stream)
        assert (told["ids"], told["next"]) == ([jobs[1]], jobs[1])
        world.http.patch(f"/v1/jobs/{jobs[0]}", json={"priority": 1})
        world.http.patch(f"/v1/jobs/{jobs[1]}", json={"priority": 1})
        assert ids(news(stream)) == [jobs[1]]


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [("?nonsense=1", {}, "?nonsense"), ("?label=x", {}, "?label"), ("", {"Last-Event-ID": "x"}, "Last-Event-ID")],
)
def test_a_wrong_parameter_is_named(world: World, query: str, headers: dict[str, str], pointer: str) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs{query}", headers=LIVE | headers))) == [pointer]


# Many who look at the same page


class Desk:
    """What reads pages, as slowly as the test says."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = threading.Event()

    def look(self, query: JobQuery) -> Listing:
        self.asked.append(query.limit)
        assert self.open.wait(10)
        if query.limit == 1:
            raise Unavailable("away")
        return Listing(listed=[], rows=[], next=str(query.limit))


def together(desk: Desk, *limits: int) -> list[Listing | BaseException]:
    """What those are answered who ask for pages of these sizes at once."""

    async def ask() -> list[Listing | BaseException]:
        looks = Looks(desk.look)
        asked = [asyncio.ensure_future(looks.at(JobQuery(limit=limit))) for limit in limits]
        await asyncio.sleep(0)
        desk.open.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_who_asks_for_the_same_page_shares_the_look_at_it() -> None:
    desk = Desk()
    answers = together(desk, 2, 3, 2, 2)
    assert sorted(desk.asked) == [2, 3]
    assert [answer.next for answer in answers if isinstance(answer, Listing)] == ["2", "3", "2", "2"]


def test_a_look_that_fails_fails_for_those_alone_who_asked_for_that_page() -> None:
    answers = together(Desk(), 1, 3, 1)
    assert [type(answer) for answer in answers] == [Unavailable, Listing, Unavailable]


def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    async def ask() -> tuple[Listing, list[int]]:
        desk = Desk()
        looks = Looks(desk.look)
        leaves, stays = (asyncio.ensure_future(looks.at(JobQuery(limit=2))) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        desk.open.set()
        found = await stays
        await looks.at(JobQuery(limit=2))
        return found, desk.asked

    found, asked = asyncio.run(ask())
    assert found.next == "2"
    assert asked == [2, 2], "the next one looks anew"
