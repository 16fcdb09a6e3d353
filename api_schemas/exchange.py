"""The only traffic between the service and a job's controller: one question, one answer, as JSON.

The service sends a `Command` and gets a `Report`. Both carry the protocol number and the
incarnation; a controller of another incarnation answers with `Stale`. Events are repeated until
their sequence number comes back as `acked`, which the service sends only after its commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api_schemas.events import WorkerEvent
from api_schemas.jobs import JobSpec

PROTOCOL = 1
NAMESPACE = "emascale"
"""The Ray namespace of every actor of the project."""
TRAINING_NODES = {"emascale-role": "!control"}
"""Ray's label selector of what a job runs on that asks for no CPU: every node but those labelled so, which keep the
cluster's books or let the service attach, and need nothing of the workers."""


def controller_name(job: str) -> str:
    """The name of a job's controller within `NAMESPACE`; one name a job, so there is never a second."""
    return f"controller:{job}"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    protocol: int = PROTOCOL
    job: str
    incarnation: int = Field(ge=1)


class Predecessor(BaseModel):
    """The incarnation before, as far as the service heard of it."""

    model_config = ConfigDict(frozen=True)

    incarnation: int = Field(ge=1)
    acked: int = Field(ge=0, description="What it said beyond this sequence number lies in its spool.")
    samples: int = Field(ge=0, description="Committed to the service.")


class Launch(_Message):
    """What a controller is started with."""

    spec: JobSpec
    storage: str = Field(description="URL of the job's own folder.")
    before: Predecessor | None = None


class Allocation(BaseModel):
    """How many workers the job shall have, and why."""

    model_config = ConfigDict(frozen=True)

    workers: int = Field(ge=0)
    kappa: tuple[float, float] = Field(description="Limits of the batch multiplier; PATCH may move them.")
    not_before: int | None = Field(None, description="Samples seen before which the change must not happen.")
    cause: str = "start"
    reason: str = ""
    requested_at: datetime


class Departure(BaseModel):
    """A node that is to leave: a job's workers there go in time, replaced by others where there is room."""

    model_config = ConfigDict(frozen=True)

    node: str = Field(description="Ray's id of it.")
    address: str
    by: datetime | None = Field(None, description="When it may be gone; null: nobody said.")


class Command(_Message):
    """What the service wants now."""

    intent: Literal["train", "pause", "cancel"]
    allocation: Allocation = Field(description="What counts while it trains.")
    departures: tuple[Departure, ...] = ()
    acked: int = Field(ge=0, description="Highest sequence number of this incarnation that is committed.")
    samples: int = Field(0, ge=0, description="Those that are committed with it.")
    wait_s: float = Field(0.0, ge=0, le=1, description="How long to wait for an event before answering.")


class Report(_Message):
    """How the job is, and what happened since `acked`."""

    generation: int
    workers: int = Field(description="Workers that train.")
    joining: int = Field(description="Workers that warm up.")
    samples: int
    done: bool = Field(description="`Finished` was sent; once it is acknowledged the controller goes.")
    events: list[Annotated[WorkerEvent, Field(discriminator="type")]]
