"""The command `emascale`, run over prepared answers."""

from __future__ import annotations

from typing import Any

import httpx
from typer.testing import CliRunner, Result

from api_schemas.cli import app
from api_schemas.views import Page, Phase
from tests.api_schemas.answers import Answers, history, job_view, losses, resize_row, sse, story

JOB = "/v1/jobs/1k114apr40046ss7"


def emascale(service: Answers, *arguments: str, **options: Any) -> Result:
    """The command; its client asks `service`."""

    def connect(url: str | None) -> Any:
        return service.client(url or "http://service")

    return CliRunner().invoke(app, arguments, obj=connect, **options)


def ended(phase: Phase) -> Answers:
    """A job that is over, with its story and its one resize."""
    service = Answers()
    service.add("GET", JOB, job_view(phase=phase))
    service.add("GET", f"{JOB}/events", history(*story()))
    service.add("SSE", f"{JOB}/events", httpx.Response(200, text=sse(*story())))
    service.add("GET", f"{JOB}/metrics", losses((2000, 1.5)))
    service.add("GET", f"{JOB}/resizes", Page(items=[resize_row()]))
    return service
