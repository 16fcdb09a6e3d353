"""A service that gives prepared answers, and models to prepare them from."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import BaseModel

from api_schemas import events
from api_schemas.client import Client
from api_schemas.errors import PROBLEM_MEDIA_TYPE, EmascaleError
from api_schemas.events import EventPage
from api_schemas.views import Curves, JobRow, JobStatus, JobView, Phase, Progress, Resize, ResizePreview

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "name": "digits",
    "recipe": {"name": "classify", "config": {}},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"budget": "10 epochs"},
    "ema": {"momentum": 0.99},
    "batch": {"base": 64, "per_worker": 64},
    "elasticity": {"workers": [1, 4]},
}


class Answers(httpx.BaseTransport):
    """Answers each request with the next of its prepared answers, the last one for ever; keeps what was asked."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[str, str], deque[httpx.Response | Exception]] = defaultdict(deque)
        self.requests: list[httpx.Request] = []

    def add(self, method: str, path: str, *answers: BaseModel | httpx.Response | Exception, status: int = 200) -> None:
        """Prepare the answers of one endpoint, in order; the method of a GET for an event stream is SSE."""
        self._prepared[method, path].extend(_response(answer, status) for answer in answers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        streams = request.headers["Accept"] == "text/event-stream"
        prepared = self._prepared["SSE" if streams else request.method, request.url.path]
        if not prepared:
            raise AssertionError(f"nothing prepared for {request.method} {request.url.path}")
        answer = prepared.popleft() if len(prepared) > 1 else prepared[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def last(self) -> httpx.Request:
        """What was asked last."""
        return self.requests[-1]

    def body(self) -> Any:
        """The JSON of the last request."""
        return json.loads(self.last.content)

    def client(self, url: str = "http://service", **options: Any) -> Client:
        """A client whose network this is, which waits for nothing."""
        defaults = {"sleep": lambda _: None, "waits": (0.0, 0.0, 0.0)}
        return Client(url, transport=self, **defaults | options)


def _response(answer: BaseModel | httpx.Response | Exception, status: int) -> httpx.Response | Exception:
    if isinstance(answer, EmascaleError):
        problem = answer.problem("It went wrong").model_dump_json()
        return httpx.Response(answer.status, text=problem, headers={"Content-Type": PROBLEM_MEDIA_TYPE})
    if isinstance(answer, BaseModel):
        return httpx.Response(status, text=answer.model_dump_json())
    return answer


def job_view(job: str = "1k114apr40046ss7", phase: Phase = Phase.RUNNING, **changes: Any) -> JobView:
    """A job in the middle of its training."""
    view = JobView(
        id=job,
        name="digits",
        spec=SPEC,
        status=JobStatus(phase=phase, since=NOW, code="training", message="Training on 2 workers."),
        workers=2,
        target_workers=None,
        kappa=2.0,
        batch=128,
        generation=1,
        progress=Progress(samples=4000, total_samples=16000, epoch=2.5, eta_s=30.0),
        values={"lr": 0.2, "ema_momentum": 0.9801},
        evaluation=None,
        noise_scale=None,
        artifacts={},
        created_at=NOW,
        updated_at=NOW,
        revision=3,
    )
    return view.model_copy(update=changes)


def job_row(job: str, name: str = "digits") -> JobRow:
    """A job in a list."""
    view = job_view(job)
    shared = view.model_dump(
        include={"id", "status", "workers", "kappa", "progress", "created_at", "updated_at", "revision"}
    )
    return JobRow(**shared | {"name": name, "recipe": "classify", "priority": 0, "labels": {}})


CHANGE: dict[str, Any] = {
    "workers": (4, 2),
    "kappa": (4.0, 2.0),
    "batch": (256, 128),
    "before": {"lr": 0.4, "ema_momentum": 0.96059601},
    "after": {"lr": 0.2, "ema_momentum": 0.9801},
    "state_factors": {"momentum_buffer": 0.5},
    "warnings": ["ema_coarse"],
}
COST: dict[str, Any] = {"decide_s": 0.01, "pause_s": 0.07, "steps_lost": 0, "samples_lost": 0}


def resize_preview() -> ResizePreview:
    """From 4 workers to 2."""
    return ResizePreview(**CHANGE)


def resize_row(**changes: Any) -> Resize:
    """From 4 workers to 2, done."""
    base = {"id": 1, "at": NOW, "cause": "allocator", "reason": "Made room.", "generation": 2, "samples": 8000}
    return Resize(**base | CHANGE | COST | changes)


def story(job: str = "1k114apr40046ss7") -> list[events.ServiceEvent | events.WorkerEvent]:
    """A short life: it starts on 4 workers, shrinks to 2 and succeeds."""
    heads = ({"job": job, "incarnation": 1, "generation": 1, "sequence": n, "at": NOW} for n in range(1, 100))
    values = CHANGE["before"]
    started = {"workers": 4, "kappa": 4.0, "batch": 256, "samples": 0, "values": values, "epoch_size": 1000}
    return [
        events.Submitted(**next(heads), name="digits"),
        events.PhaseChanged(**next(heads), phase=Phase.STARTING, code="launched", message="Workers start."),
        events.Started(**next(heads), **started, total_samples=16000, bn_momentum=None),
        events.Metrics(**next(heads), points=[(2000, {"loss": 1.5, "lr": 0.39, "noise_scale": None})]),
        events.Committed(**next(heads), start=0, stop=8000),
        events.Resized(**next(heads), cause="allocator", reason="Made room [for b].", samples=8000, **CHANGE, **COST),
        events.Committed(**next(heads), start=8000, stop=16000),
        events.Evaluated(**next(heads), samples=16000, target={"accuracy": 0.9711}, ema={"accuracy": 0.9822}),
        events.Finished(**next(heads), outcome="succeeded", code="done", message="Trained."),
        events.PhaseChanged(**next(heads), phase=Phase.SUCCEEDED, code="done", message="Trained."),
    ]


def history(*told: events.ServiceEvent | events.WorkerEvent, start: int = 1, more: bool = False) -> EventPage:
    """A page of events whose cursors count from `start`."""
    last = str(start + len(told) - 1) if told else None
    return EventPage(items=list(told), last=last, next=last if more else None)


def losses(*points: tuple[int, float | None]) -> Curves:
    """The loss alone."""
    return Curves(series={"loss": list(points)} if points else {})


def sse(*told: events.ServiceEvent | events.WorkerEvent, start: int = 1) -> str:
    """Events as an event stream; cursors count from `start`."""
    messages = (
        f"id: {cursor}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
        for cursor, event in enumerate(told, start)
    )
    return ": welcome\n\n" + "".join(messages)
