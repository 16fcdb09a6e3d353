"""The events of a job as they happen, over a real connection: resumed, it repeats nothing and leaves nothing out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi.sse import ServerSentEvent

from api_schemas.stream import Message, lines, messages
from service import feed
from tests.service.world import World, finished, pointers, problem, resized

LIVE = {"Accept": "text/event-stream"}
PATIENCE_S = 60


@contextmanager
def listening(wire: httpx.Client, job: str, query: str = "", **headers: str) -> Iterator[Iterator[Message]]:
    """The messages of the stream, as they come."""
    with wire.stream("GET", f"/v1/jobs/{job}/events{query}", headers=LIVE | headers) as response:
        assert response.status_code == 200
        yield messages(lines(response.iter_text()))


def heard(wire: httpx.Client, job: str, query: str = "", **headers: str) -> list[Message]:
    """All that the stream says until it ends."""
    with listening(wire, job, query, **headers) as stream:
        return list(stream)


def history(world: World, job: str) -> list[Any]:
    return list(world.get(f"/v1/jobs/{job}/events")["items"])


def ended(world: World) -> str:
    """A job that has ended, with eight events."""
    controller = world.run()
    controller.report(resized(64, (2, 3)), resized(128, (3, 2)), finished("succeeded"))
    return controller.job


def test_the_stream_says_what_the_pages_say_and_ends_with_the_job(world: World, wire: httpx.Client) -> None:
    job = ended(world)
    said = heard(wire, job)
    assert [httpx.Response(200, text=message.data).json() for message in said] == history(world, job)
    assert [message.id for message in said] == sorted({message.id for message in said}, key=int)


def test_what_happens_later_is_said_when_it_happens(world: World, wire: httpx.Client) -> None:
    controller = world.run()
    with listening(wire, controller.job) as stream:
        assert len(list(islice(stream, 4))) == 4
        controller.report(resized(64, (2, 3)))
        assert '"type":"resized"' in next(stream).data
        world.http.post(f"/v1/jobs/{controller.job}/cancel")
        assert '"phase":"cancelling"' in next(stream).data
        controller.report(finished("cancelled"))
        assert ['"type":"finished"' in next(stream).data, '"phase":"cancelled"' in next(stream).data] == [True, True]
        assert list(stream) == []


def test_resumed_after_any_message_it_goes_on_with_the_next(world: World, wire: httpx.Client) -> None:
    job = ended(world)
    whole = heard(wire, job)
    for number, message in enumerate(whole, start=1):
        assert heard(wire, job, **{"Last-Event-ID": message.id}) == whole[number:]
        assert heard(wire, job, f"?after={message.id}") == whole[number:]


def test_a_resumed_stream_goes_on_from_what_was_heard_not_from_where_it_began(world: World, wire: httpx.Client) -> None:
    """A browser repeats the address with its first cursor, and adds the header."""
    job = ended(world)
    whole = heard(wire, job)
    assert heard(wire, job, f"?after={whole[0].id}", **{"Last-Event-ID": whole[4].id}) == whole[5:]


def test_the_cursor_of_a_page_is_one_of_the_stream(world: World, wire: httpx.Client) -> None:
    job = ended(world)
    page = world.get(f"/v1/jobs/{job}/events", limit=3)
    assert heard(wire, job, **{"Last-Event-ID": page["last"]}) == heard(wire, job)[3:]


def test_more_events_than_are_read_at_once(world: World, wire: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended(world)
    for chunk in (1, 3, len(history(world, job))):
        monkeypatch.setattr(feed, "CHUNK", chunk)
        assert len(heard(wire, job)) == len(history(world, job))


def test_a_deleted_job_ends_the_stream(world: World, wire: httpx.Client) -> None:
    job = world.submit()
    with listening(wire, job) as stream:
        assert '"type":"submitted"' in next(stream).data
        world.lose(job)
        assert list(stream) == []


def test_a_stream_that_nobody_hears_stops_looking(
    world: World, wire: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Event()

    async def watched(*arguments: Any) -> AsyncIterator[ServerSentEvent]:
        try:
            async for message in stream(*arguments):
                yield message
        finally:
            stopped.set()

    stream = feed.stream
    monkeypatch.setattr(feed, "stream", watched)
    with listening(wire, world.submit()) as messages_:
        next(messages_)
    assert stopped.wait(PATIENCE_S)


def test_the_answer_is_a_stream_that_nobody_keeps(world: World, wire: httpx.Client) -> None:
    response = wire.get(f"/v1/jobs/{ended(world)}/events", headers=LIVE)
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"


def test_a_job_that_does_not_exist_is_not_found_before_the_stream_begins(world: World) -> None:
    problem(world.http.get("/v1/jobs/nobody/events", headers=LIVE), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": ""}, "Last-Event-ID"),
        ("?after=x", {}, "?after"),
        ("?limit=3", {}, "?limit"),  # a stream has no pages
        ("?since=3", {}, "?since"),
    ],
)
def test_a_wrong_parameter_is_named(world: World, query: str, headers: dict[str, str], pointer: str) -> None:
    job = ended(world)
    response = world.http.get(f"/v1/jobs/{job}/events{query}", headers=LIVE | headers)
    assert list(pointers(response)) == [pointer]


# How the job stands, beside its events


def views(wire: httpx.Client, job: str, query: str = "?view=true") -> Iterator[dict[str, Any]]:
    """What each message of the type `view` holds, as they come."""
    with wire.stream("GET", f"/v1/jobs/{job}/events{query}", headers=LIVE) as response:
        kind = ""
        for line in lines(response.iter_text()):
            name, _, value = line.partition(": ")
            if name == "data" and kind == "view":
                yield httpx.Response(200, text=value).json()
            kind = value if name == "event" else "" if not line else kind


def test_a_stream_of_the_view_begins_with_the_whole_of_it(world: World, wire: httpx.Client) -> None:
    job = ended(world)
    assert list(views(wire, job)) == [world.get(f"/v1/jobs/{job}")]


def test_then_it_tells_what_is_new_and_nothing_else(world: World, wire: httpx.Client) -> None:
    controller = world.run()
    job = controller.job
    stream = views(wire, job)
    told = next(stream)
    assert told == world.get(f"/v1/jobs/{job}")
    controller.report(resized(64, (2, 3)))
    told |= (new := next(stream))
    assert told == world.get(f"/v1/jobs/{job}")
    assert {"workers", "revision"} <= set(new)
    assert not {"spec", "name", "created_at"} & set(new)
    controller.report(finished("succeeded"))
    for new in stream:
        told |= new
    assert told == world.get(f"/v1/jobs/{job}")


def test_events_alone_come_without_the_view(world: World, wire: httpx.Client) -> None:
    job = ended(world)
    assert list(views(wire, job, "")) == []
    both = heard(wire, job, "?view=true")
    assert [message for message in both if '"sequence":' in message.data] == heard(wire, job)
    assert len(both) == len(heard(wire, job)) + 1
