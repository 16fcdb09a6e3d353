"""What openapi.json promises, tried by schemathesis with all its checks: whatever is asked, the answer is as described.

Its coverage phase makes the cases at the edges of each parameter and each field; beside them some at random. Most ask
for what there is, so that each operation is met with every success that it promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any, Literal

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from api_schemas.tokens import Scope
from service.app import create_app
from service.db import Database, connect
from service.settings import Settings
from tests.service.test_access import bearer, token
from tests.service.test_submit import catalogue
from tests.service.world import ADDRESS, Clock, World, committed, finished, metrics, resized

BEYOND_A_SCHEMA = ["2xx", "304", "401", "403", "404", "409", "412", "416", "422"]
"""How a valid request may be answered. 422, because there are rules that JSON schema cannot state: a minimum below its
maximum, a kappa that a rule covers, a recipe that the catalogue has."""
EVERY = {"POST /v1/jobs": 30, "POST /v1/scaling/preview": 30}
"""Of these each such case is sent alone: they have thousands, the same for each optimizer."""
TRAINS, ENDED = "1k1fg9wpnmr00001", "1k1fg9wpnmr00002"
CHECKPOINT = "000000000128/manifest.json"
FILES = {"artifacts": "ema.safetensors", "checkpoints": CHECKPOINT}
Place = dict[str, str]


class Present:
    """The application of the test that runs; the schema is read before there is one."""

    app: FastAPI
    turns: Iterator[int]
    places: Iterator[Place]
    promised: set[int]
    met: set[int]

    def play(self, app: FastAPI, token_id: str) -> None:
        """From the beginning."""
        known = {"token_id": token_id, "name": "byol", "after": "1"}
        self.app, self.turns = app, count()
        self.places = cycle([known | {"job_id": TRAINS}, known | {"job_id": ENDED}, {}])
        self.promised, self.met = set(), set()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def described(auth: Literal["none", "token"]) -> Any:
    """The API of a service with or without tokens."""
    app = create_app(Settings(data_folder=Path(), auth=auth), Database(connect("sqlite://"), Clock()))
    schema = schemathesis.openapi.from_dict(app.openapi(), config=SchemathesisConfig.from_dict(configuration))
    schema.app = present
    return schema


present = Present()
configuration = {"checks": {"positive_data_acceptance": {"expected-statuses": BEYOND_A_SCHEMA}}}
open_to_all, closed = described("none"), described("token")
BOUNDED = settings(
    max_examples=4, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def app(request: pytest.FixtureRequest, world: World, access: dict[str, str]) -> Iterator[None]:
    """With a job that trains, one that has ended, and one that waits; each of its successes is met in the end."""
    controller = world.run(labels={"team": "vision"})
    controller.report(committed(0, 128), metrics((128, {"loss": 1.5})), resized(128, (2, 3)), committed(128, 320))
    ended = world.run(name="ended")
    ended.report(committed(0, 128), finished("succeeded"))
    for folder, path in FILES.items():
        for job in (controller.job, ended.job):
            world.store(job, f"{folder}/{path}", b"content")
    world.submit(name="waiting")
    assert (controller.job, ended.job) == (TRAINS, ENDED)
    if "/recipes" in request.node.name:  # elsewhere no catalogue: every name is good then
        catalogue(world.database, "byol")
    new = count(1000)
    settings = world.settings.model_copy(update={"auth": "token" if access else "none"})
    spare = token(world.database, Scope.READ)
    present.play(create_app(settings, world.database, new_job_id=lambda: f"job{next(new)}"), spare.id)
    yield
    assert present.promised <= present.met, "some success that is described was never seen"


@pytest.fixture
def access(request: pytest.FixtureRequest, database: Database) -> dict[str, str]:
    """The headers by which a request is allowed."""
    return bearer(token(database, Scope.ADMIN).secret) if request.param == "with a token" else {}


@pytest.mark.parametrize(("database_url", "access"), [("sqlite", "without a token")], indirect=True)
@pytest.mark.usefixtures("app")
@open_to_all.parametrize()
@BOUNDED
def test_answers_are_as_the_api_describes_them(case: Case, access: dict[str, str]) -> None:
    answered(case, access)


@pytest.mark.parametrize(("database_url", "access"), [("postgresql", "with a token")], indirect=True)
@pytest.mark.usefixtures("app")
@closed.parametrize()
@BOUNDED
def test_they_are_where_a_token_is_needed(case: Case, access: dict[str, str]) -> None:
    answered(case, access)


def answered(case: Case, headers: dict[str, str]) -> None:
    """With all checks of schemathesis."""
    if next(present.turns) % EVERY.get(case.operation.label, 1):
        return
    aim(case, next(present.places))
    response = case.call_and_validate(base_url=ADDRESS, headers=headers)
    present.promised |= {int(status) for status in case.operation.definition.raw["responses"] if status < "4"}
    present.met.add(response.status_code)
    if response.status_code == 200 and 304 in present.promised - present.met:
        case.headers["If-None-Match"] = response.headers["etag"][0]
        present.met.add(case.call_and_validate(base_url=ADDRESS, headers=headers).status_code)


def aim(case: Case, place: Place) -> None:
    """Ask for what there is, which nobody can guess; an empty place: for what was made up."""
    if not place or case.meta is None:
        return
    if not case.meta.is_negative_at(ParameterLocation.PATH):
        case.path_parameters |= {name: place[name] for name in case.path_parameters if name in place}
        aim_at_a_file(case)
        if case.query.get("follow"):
            case.path_parameters["job_id"] = ENDED  # another one's log has no end
    if not case.meta.is_negative_at(ParameterLocation.QUERY):
        if "after" in case.query:
            case.query["after"] = place["after" if "job_id" in case.path_parameters else "token_id"]
        if case.operation.label == "POST /v1/jobs":
            case.query.pop("dry_run", None)


def aim_at_a_file(case: Case) -> None:
    """Every other time at a part of it."""
    if "path" not in case.path_parameters:
        return
    case.path_parameters["path"] = FILES[case.operation.path.split("/")[-2]]
    if case.path_parameters["job_id"] == ENDED:
        case.headers["Range"] = "bytes=1-3"
