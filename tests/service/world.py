"""A service in this process, on a real database file, and the words to write its tests in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI

from api_schemas.exchange import Report
from service import events
from service.db import Database, lock
from service.settings import Settings
from service.tables import Job

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADDRESS = "http://127.0.0.1:8000"


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class InProcess(httpx.BaseTransport):
    """Carries requests of a synchronous client to an application, whose event loop the portal leads to."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._asgi = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = await self._asgi.handle_async_request(copy)
        raw = b"".join([part async for part in response.aiter_raw()])  # as it travels: perhaps compressed
        return httpx.Response(response.status_code, headers=response.headers, content=raw)


def spec(**changes: Any) -> dict[str, Any]:
    """The body of a job that may have 1 to 4 workers of 64 samples."""
    return {
        "name": "digits",
        "recipe": {"name": "tests.recipes:Tiny"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"budget": "5 epochs"},
        "batch": {"base": 64, "per_worker": 64},
        "elasticity": {"workers": [1, 4]},
    } | changes


def started(**changes: Any) -> dict[str, Any]:
    """A `started` event without what `Controller` adds."""
    return {
        "type": "started",
        "workers": 2,
        "kappa": 2.0,
        "batch": 128,
        "samples": 0,
        "values": {"lr": 0.1, "betas": [0.9, 0.99]},
        "epoch_size": 1000,
        "total_samples": 5000,
        "bn_momentum": None,
    } | changes


def resized(samples: int, workers: tuple[int, int], **changes: Any) -> dict[str, Any]:
    return {
        "type": "resized",
        "cause": "api",
        "reason": "asked for",
        "samples": samples,
        "workers": workers,
        "kappa": workers,
        "batch": tuple(64 * number for number in workers),
        "before": {"lr": 0.1},
        "after": {"lr": 0.2},
        "state_factors": {"step": 0.5},
        "warnings": [],
        "decide_s": 0.1,
        "pause_s": 0.2,
        "steps_lost": 0,
        "samples_lost": 0,
    } | changes


def committed(start: int, stop: int, **changes: Any) -> dict[str, Any]:
    return {"type": "committed", "start": start, "stop": stop} | changes


def metrics(*points: tuple[int, dict[str, float | None]]) -> dict[str, Any]:
    return {"type": "metrics", "points": points}


def finished(outcome: str, **changes: Any) -> dict[str, Any]:
    return {"type": "finished", "outcome": outcome, "code": outcome, "message": f"It has {outcome}."} | changes


@dataclass
class Controller:
    """Stands in for a job's controller: numbers its events and reports them into the database."""

    database: Database
    job: str
    incarnation: int = 1
    generation: int = 1
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    def launch(cls, database: Database, job: str) -> Controller:
        """A controller of a new incarnation, as the reconciler starts one."""
        with database.writing() as session:
            row = lock(session, Job, job)
            assert row is not None
            return cls(database, job, incarnation=events.launch(session, row, database.now()))

    def event(self, body: dict[str, Any]) -> dict[str, Any]:
        whose = {"job": self.job, "incarnation": self.incarnation, "generation": self.generation}
        return whose | {"sequence": next(self.numbers), "at": self.database.now()} | body

    def report(self, *bodies: dict[str, Any]) -> Report:
        """These events, reported and taken in."""
        report = self.message([self.event(body) for body in bodies])
        self.send(report)
        return report

    def message(self, reported: list[dict[str, Any]]) -> Report:
        whose = {"job": self.job, "incarnation": self.incarnation, "generation": self.generation}
        state = {"workers": 1, "joining": 0, "samples": 0, "done": False}
        return Report.model_validate(whose | state | {"events": reported})

    def send(self, report: Report) -> None:
        with self.database.writing() as session:
            row = lock(session, Job, self.job)
            assert row is not None
            events.take_in(session, row, report, self.database.now())


@dataclass
class World:
    """Everything a test of the API touches."""

    settings: Settings
    database: Database
    clock: Clock
    http: httpx.Client

    def submit(self, **changes: Any) -> str:
        """The id of a new job."""
        response = self.http.post("/v1/jobs", json=spec(**changes))
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def run(self, **changes: Any) -> Controller:
        """A new job that trains on 2 workers."""
        controller = Controller.launch(self.database, self.submit(**changes))
        controller.report(started())
        return controller

    def lose(self, job: str) -> None:
        """The job is gone, in whatever phase it was."""
        with self.database.writing() as session:
            session.delete(session.get_one(Job, job))

    def job(self, job: str) -> dict[str, Any]:
        """The job's view."""
        return self.get(f"/v1/jobs/{job}")

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """What is there, once it is a success."""
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def store(self, job: str, path: str, content: bytes = b"") -> Path:
        """A file in the job's own folder, as a worker leaves it there."""
        file = Path(self.settings.storage_url, job, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, once it is the one expected."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    return body


def pointers(response: httpx.Response, code: str = "invalid_request") -> dict[str, str]:
    """Pointer -> message of a 422."""
    return {error["pointer"]: error["message"] for error in problem(response, 422, code)["errors"]}


def line(second: int, text: str) -> bytes:
    """Of a worker's log."""
    return f"2026-01-01T12:00:{second:02d}Z {text}\n".encode()
