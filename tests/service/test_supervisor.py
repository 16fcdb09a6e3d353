"""What the supervisor makes of a Ray head that is lost; the real processes are in `integration/test_supervisor.py`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from sqlmodel import Session

from api_schemas.errors import Unavailable
from service import supervisor
from service.db import Database
from service.head import EmbeddedRay, HeadFailed
from service.settings import Settings
from service.supervisor import Supervisor, url_of


class Over(Exception):
    """The script has come to its end."""


class Head:
    """It starts at these addresses, one after the other; None: it does not."""

    def __init__(self, *starts: str | None) -> None:
        self.up = False
        self._starts = list(starts)

    def alive(self) -> bool:
        return self.up

    def access(self) -> dict[str, str]:
        return {}

    def start(self, _slots: int | None) -> str:
        address = self._starts.pop(0)
        if address is None:
            raise HeadFailed("no such luck")
        self.up = True
        return address


class Child:
    """Writes down what it is to run with; a look of the supervisor begins with the API."""

    def __init__(self, name: str, script: Callable[[int], None], told: list[tuple[str, str]]) -> None:
        self._name = name
        self._script = script
        self._told = told
        self._looks = 0

    def keep(self, environment: Mapping[str, str], _now: float) -> None:
        self._looks += 1
        self._told.append((self._name, environment.get("EMASCALE_RAY_ADDRESS", "")))
        if self._name == "api":
            self._script(self._looks)

    def kill(self) -> None:
        self._told.append((self._name, "stopped"))


def play(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, database: Database, head: Head, script: Callable[[int], None]
) -> list[tuple[str, str]]:
    """Run the supervisor; what its children were told, in order."""
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(supervisor, "Child", lambda name, *_: Child(name, script, told))
    monkeypatch.setattr(supervisor, "LOOK_S", 0)
    monkeypatch.setattr(supervisor, "HEAD_DELAY_S", 0)
    with socket.socket() as listener:
        keeper = Supervisor(settings, {}, Path(), listener, cast(EmbeddedRay, head))
        with pytest.raises(Over):
            keeper.run(database, lambda _: None)
    return told


def at(looks: Mapping[int, Callable[[], Any]], end: int) -> Callable[[int], None]:
    """A script: what happens at which look; at `end` it is over."""

    def script(look: int) -> None:
        if look == end:
            raise Over
        looks.get(look, lambda: None)()

    return script


def test_a_head_that_does_not_come_back_is_tried_again_and_the_api_stays(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, database: Database
) -> None:
    head = Head("first", None, None, "second")
    script = at({2: lambda: setattr(head, "up", False)}, end=5)
    told = play(monkeypatch, settings, database, head, script)
    assert [what for name, what in told if name == "api"] == [""] * 5
    assert [what for name, what in told if name == "reconciler" and what != "stopped"] == ["first", "second"]
    gone = told.index(("reconciler", "first"))
    assert told[gone + 1 : gone + 3] == [("api", ""), ("reconciler", "stopped")]


def test_a_head_that_never_ran_is_an_error(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, database: Database
) -> None:
    with pytest.raises(HeadFailed):
        play(monkeypatch, settings, database, Head(None), at({}, end=9))


def test_nodes_do_not_get_the_password_of_the_database(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    given: dict[str, str] = {}

    def embedded(_folder: Path, environment: Mapping[str, str]) -> None:
        given.update(environment)
        raise Over

    monkeypatch.setattr(supervisor, "EmbeddedRay", embedded)
    with pytest.raises(Over):
        supervisor.serve(settings.model_copy(update={"port": 0}), {"HOME": "/root"}, lambda _: None)
    assert given["EMASCALE_STORAGE_URL"] == settings.storage_url
    assert settings.database_url not in given.values()


def test_a_database_that_is_away_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, database: Database
) -> None:
    @contextmanager
    def away() -> Iterator[Session]:
        raise Unavailable
        yield

    monkeypatch.setattr(database, "reading", away)
    told = play(monkeypatch, settings, database, Head("there"), at({}, end=3))
    assert ("reconciler", "there") in told


@pytest.mark.parametrize(
    ("family", "bound", "told"),
    [
        (socket.AF_INET, "127.0.0.1", "http://127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "http://127.0.0.1"),
        (socket.AF_INET6, "::1", "http://[::1]"),
        (socket.AF_INET6, "::", "http://[::1]"),
    ],
)
def test_the_address_that_is_told_is_one_to_ask_at(family: int, bound: str, told: str) -> None:
    try:
        listener = socket.create_server((bound, 0), family=family)
    except OSError:
        pytest.skip(f"this machine cannot listen on {bound}")
    with listener:
        assert url_of(listener) == f"{told}:{listener.getsockname()[1]}"
