"""`Client`: one method per endpoint. Every answer is a model of the contract, every failure one of its exceptions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from api_schemas import ids, stream
from api_schemas.complaints import misfit
from api_schemas.connection import WAITS, Connection, parse
from api_schemas.errors import EmascaleError, InternalError, InvalidRequest, NotFound
from api_schemas.events import Event, EventPage, PhaseChanged, parse_event
from api_schemas.jobs import JobPatch, JobSpec
from api_schemas.previews import JobPreview, ScalingPreview, ScalingPreviewRequest
from api_schemas.tokens import NewToken, Session, Token, TokenRequest
from api_schemas.views import (
    Artifact,
    Checkpoint,
    ClusterView,
    Curves,
    Health,
    JobRow,
    JobView,
    Ledger,
    LogLines,
    Page,
    Phase,
    RecipeInfo,
    Resize,
    ResizeAnswer,
    ResizePreview,
)

DEFAULT_URL = "http://127.0.0.1:8000"
MOST_ROWS = 200
"""Jobs that the service puts on a page at most."""


class Client:
    """A service at an address. Safe to keep for long; not safe to share between threads.

    `base_url` defaults to the environment's EMASCALE_URL, then to this machine; `token` to its EMASCALE_TOKEN.
    Every method may raise ServiceUnreachable, and the classes of `api_schemas.errors` that its endpoint answers with.
    `transport`, `sleep`, `clock` and `waits` (seconds before each repetition of a GET that found no
    connection) are there for tests and for whoever embeds a service.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        waits: Sequence[float] = WAITS,
    ) -> None:
        address = base_url or os.environ.get("EMASCALE_URL") or DEFAULT_URL
        secret = token or os.environ.get("EMASCALE_TOKEN", "").strip()
        self._connection = Connection(
            address, token=secret, transport=transport, timeout_s=timeout_s, sleep=sleep, waits=waits
        )
        self._sleep = sleep
        self._clock = clock
        self._seen: dict[str, tuple[str, JobView]] = {}  # the last view of each job, with its ETag

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    # Jobs

    def submit(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> JobView:
        """Hand in a job. The same key and spec again return the same job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return parse(self._send("POST", "/v1/jobs", json=_body(spec), headers=headers), JobView)

    def preview_submit(self, spec: JobSpec | Mapping[str, Any]) -> JobPreview:
        """Check a spec and see its sizes; nothing is submitted."""
        return parse(self._send("POST", "/v1/jobs", json=_body(spec), params={"dry_run": True}), JobPreview)

    def jobs(
        self,
        *,
        status: Sequence[Phase | str] | None = None,
        recipe: str | None = None,
        name: str | None = None,
        label: Sequence[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[JobRow]:
        """A page of jobs, newest first. A label reads `key=value`."""
        filters = {"status": list(status) if status else None, "recipe": recipe, "name": name, "label": label}
        return parse(self._get("/v1/jobs", limit=limit, after=after, **filters), Page[JobRow])

    def iter_jobs(self, **filters: Any) -> Iterator[JobRow]:
        """All jobs, page by page; the filters are those of `jobs`."""
        page = self.jobs(**filters)
        yield from page.items
        while page.next is not None:
            page = self.jobs(**filters | {"after": page.next})
            yield from page.items

    def job(self, job: str) -> JobView:
        """A job, whole. Asking again costs next to nothing while it has not changed."""
        etag, seen = self._seen.get(job, (None, None))
        response = self._send("GET", _path(job), headers={"If-None-Match": etag} if etag else None)
        if response.status_code == httpx.codes.NOT_MODIFIED and seen is not None:
            return seen
        view = parse(response, JobView)
        if tag := response.headers.get("ETag"):
            self._seen[job] = (tag, view)
        return view

    def resolve(self, job: str) -> str:
        """The id of the one job whose id starts so, or whose name this is. NotFound, or InvalidRequest: several.

        A whole id is what it is, also where another job is named so.
        """
        if ids.is_id(job):
            with suppress(NotFound):
                return self.job(job).id
        found = {row.id: row.name for row in chain(self._named(job), self._beginning(job))}
        if not found:
            raise NotFound(f"No job is named {job!r}, or has an id that starts so.")
        if len(found) > 1:
            named = ", ".join(f"{each} ({found[each]})" for each in sorted(found, reverse=True)[:5])
            raise InvalidRequest(f"{len(found)} jobs are named {job!r}, or have an id that starts so: {named}.")
        return next(iter(found))

    def _named(self, name: str) -> Iterator[JobRow]:
        return (row for row in self.iter_jobs(name=name, limit=MOST_ROWS) if row.name == name)

    def _beginning(self, text: str) -> Iterable[JobRow]:
        """Jobs whose ids start so: they follow each other in the list."""
        if not ids.begins_id(text):
            return ()
        older = self.iter_jobs(after=ids.beyond(text), limit=MOST_ROWS)
        return takewhile(lambda row: row.id.startswith(text), older)

    def patch(self, job: str, change: JobPatch | Mapping[str, Any]) -> JobView:
        """Change what may change while a job lives: elasticity, priority, labels."""
        return parse(self._send("PATCH", _path(job), json=_body(change)), JobView)

    def resize(self, job: str, workers: int | None, *, at_samples: int | None = None) -> ResizeAnswer:
        """Ask for another number of workers, now or once so many samples were seen.

        None: as many as elasticity allows again, at once; sizes that were asked for are taken back.
        """
        return parse(self._resize(job, workers, at_samples, dry_run=None), ResizeAnswer)

    def preview_resize(self, job: str, workers: int | None, *, at_samples: int | None = None) -> ResizePreview:
        """Every value before and after a resize; nothing happens."""
        return parse(self._resize(job, workers, at_samples, dry_run=True), ResizePreview)

    def pause(self, job: str) -> JobView:
        """Stop a job, with a checkpoint of its last step, so that it can go on later; its slots are free then."""
        return parse(self._send("POST", _path(job, "pause")), JobView)

    def resume(self, job: str) -> JobView:
        """Let a paused job go on, on as many workers as there are."""
        return parse(self._send("POST", _path(job, "resume")), JobView)

    def cancel(self, job: str) -> JobView:
        """Stop a job; one that has ended stays as it is."""
        return parse(self._send("POST", _path(job, "cancel")), JobView)

    def delete(self, job: str) -> None:
        """Remove a job that has ended, with its checkpoints and artifacts."""
        self._send("DELETE", _path(job))
        self._seen.pop(job, None)

    def wait(self, job: str, *, timeout_s: float | None = None, every_s: float = 1.0) -> JobView:
        """The job once it has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else self._clock() + timeout_s
        while not (view := self.job(job)).status.is_terminal:
            if deadline is not None and self._clock() >= deadline:
                raise TimeoutError(f"Job {job} is still {view.status.phase} after {timeout_s:g} s.")
            self._sleep(every_s)
        return view

    # What happened

    def events(
        self,
        job: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool | None = None,
        types: Sequence[str] | None = None,
    ) -> EventPage:
        """A page of events, oldest first; its `last` as `after` leads to what happens later.

        With `newest_first` pages lead back, and `last` of the first one to what happens later.
        """
        asked = {"newest_first": newest_first, "type": list(types) if types else None}
        return parse(self._get(_path(job, "events"), after=after, limit=limit, **asked), EventPage)

    def watch(self, job: str, *, after: str | None = None) -> Iterator[Event]:
        """Every event, those of the past first, then as they happen; ends with the job."""
        path = _path(job, "events")
        for message in stream.follow(self._connection, path, after=after, ended=partial(self._has_ended, job)):
            event = _event(message.data)
            yield event
            if isinstance(event, PhaseChanged) and event.phase.is_terminal:
                return

    def metrics(
        self,
        job: str,
        names: Sequence[str] | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int | None = None,
    ) -> Curves:
        """Training curves over samples seen, each thinned to so many points."""
        return parse(self._get(_path(job, "metrics"), **_curves(names, start, stop, points)), Curves)

    def metrics_csv(
        self,
        job: str,
        names: Sequence[str] | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        points: int | None = None,
    ) -> Iterator[str]:
        """The same as lines of CSV while they arrive, the first `name,samples,value`; without `points` all of them."""
        params = _curves(names, start, stop, points)
        headers = {"Accept": "text/csv"}
        with self._connection.stream(_path(job, "metrics"), params=params, headers=headers) as response:
            yield from stream.lines(response.iter_text())

    def resizes(self, job: str, *, after: str | None = None, limit: int | None = None) -> Page[Resize]:
        """What each change of size did."""
        return parse(self._get(_path(job, "resizes"), after=after, limit=limit), Page[Resize])

    def iter_resizes(self, job: str) -> Iterator[Resize]:
        """What every change of size did, page by page."""
        page = self.resizes(job)
        yield from page.items
        while page.next is not None:
            page = self.resizes(job, after=page.next)
            yield from page.items

    def ledger(self, job: str) -> Ledger:
        """Which samples were trained on, by which generation."""
        return parse(self._get(_path(job, "ledger")), Ledger)

    def logs(
        self,
        job: str,
        *,
        rank: int | str | None = None,
        tail: int | None = None,
        follow: bool = False,
        waits: Callable[[EmascaleError], None] | None = None,
    ) -> Iterator[str]:
        """Log lines as they arrive, of one worker or of all: the last `tail`, and with `follow` those that come.

        Where that breaks off it goes on with the next line. A service that stays away is given up after some seconds;
        with `waits` it is waited for, and that is told why, once in each outage.
        """
        path, params = _path(job, "logs"), {"rank": rank, "tail": tail}
        if follow:
            ended = partial(self._has_ended, job)
            for message in stream.follow(self._connection, path, after=None, ended=ended, params=params, waits=waits):
                yield from _log_lines(message.data)
            return
        with self._connection.stream(path, params=params) as response:
            yield from stream.lines(response.iter_text())

    def checkpoints(self, job: str) -> Page[Checkpoint]:
        """The durable checkpoints."""
        return parse(self._get(_path(job, "checkpoints")), Page[Checkpoint])

    def artifacts(self, job: str) -> Page[Artifact]:
        """What the job exported."""
        return parse(self._get(_path(job, "artifacts")), Page[Artifact])

    def download(self, job: str, artifact: str, target: Path) -> Path:
        """Write an artifact to a file, which appears once it is whole."""
        return self._download(_path(job, "artifacts", artifact), target)

    def download_checkpoint(self, job: str, checkpoint: str, file: str, target: Path) -> Path:
        """Write one of a checkpoint's files to a file, which appears once it is whole."""
        return self._download(_path(job, "checkpoints", checkpoint, file), target)

    # The service

    def scaling_preview(self, request: ScalingPreviewRequest | Mapping[str, Any]) -> ScalingPreview:
        """What the scaling rules make of base values at each kappa."""
        return parse(self._send("POST", "/v1/scaling/preview", json=_body(request)), ScalingPreview)

    def recipes(self) -> Page[RecipeInfo]:
        """The training tasks that the service knows."""
        return parse(self._get("/v1/recipes"), Page[RecipeInfo])

    def recipe(self, name: str, *, py_modules: Sequence[str] | None = None) -> RecipeInfo:
        """One of them, or your own `package.module:Class`, of packages at these URLs if not on the service's path.

        Raises NotFound, also where the service cannot import it.
        """
        return parse(self._get(f"/v1/recipes/{quote(name, safe='')}", py_modules=py_modules), RecipeInfo)

    def cluster(self) -> ClusterView:
        """Nodes, and who waits for them."""
        return parse(self._get("/v1/cluster"), ClusterView)

    def session(self) -> Session:
        """Whether the service asks for tokens, and what it knows of this one."""
        return parse(self._get("/v1/session"), Session)

    def create_token(self, asked: TokenRequest | Mapping[str, Any]) -> NewToken:
        """Make a token; the answer is the only one that holds its secret."""
        return parse(self._send("POST", "/v1/tokens", json=_body(asked)), NewToken)

    def tokens(self, *, limit: int | None = None, after: str | None = None) -> Page[Token]:
        """A page of tokens, newest first, without their secrets."""
        return parse(self._get("/v1/tokens", limit=limit, after=after), Page[Token])

    def revoke_token(self, token: str) -> Token:
        """Have the token of this id refused, within 5 s."""
        return parse(self._send("DELETE", f"/v1/tokens/{quote(token, safe='')}"), Token)

    def health(self, probe: Literal["healthz", "readyz"] = "readyz") -> Health:
        """Whether the service is up (`healthz`), and whether all that it needs is too (`readyz`)."""
        return parse(self._get(f"/{probe}"), Health)

    def _has_ended(self, job: str) -> bool:
        return self.job(job).status.is_terminal

    def _get(self, path: str, **params: Any) -> httpx.Response:
        return self._connection.request("GET", path, params=params)

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return self._connection.request(method, path, **parts)

    def _resize(self, job: str, workers: int | None, at_samples: int | None, *, dry_run: bool | None) -> httpx.Response:
        body = {"workers": workers, "at_samples": at_samples}
        return self._send("POST", _path(job, "resize"), json=body, params={"dry_run": dry_run})

    def _download(self, path: str, target: Path) -> Path:
        partial = target.with_name(target.name + ".part")
        with self._connection.stream(path) as response, partial.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
        return partial.replace(target)


def _path(job: str, *parts: str) -> str:
    return "/".join(["/v1/jobs", *(quote(part, safe="") for part in (job, *parts))])


def _curves(names: Sequence[str] | None, start: int | None, stop: int | None, points: int | None) -> dict[str, Any]:
    return {"name": list(names) if names else None, "from": start, "to": stop, "points": points}


def _body(value: BaseModel | Mapping[str, Any]) -> Any:
    """As JSON; of a model what was set, so that a patch changes nothing else."""
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


def _log_lines(data: str) -> list[str]:
    try:
        return LogLines.model_validate_json(data).lines
    except ValidationError as error:
        raise InternalError("The service sent log lines that this client cannot read: it may be older.") from error


def _event(data: str) -> Event:
    try:
        return parse_event(TypeAdapter(dict[str, Any]).validate_json(data))
    except ValidationError as error:
        what = misfit(error) or "that this client does not know"
        raise InternalError(f"The service sent an event {what}: this client may be older than it.") from error
