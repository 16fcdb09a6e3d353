"""What happens to a job, as a discriminated union on `type`.

Every event carries its job, the incarnation and generation it belongs to, and a sequence number that
is unique within (job, incarnation). Incarnation 0 is the service's own: submission, phases, requests.
The others are written by the job's controller; a later incarnation fences off every earlier one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api_schemas.views import Page, Phase, Values


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)

    job: str
    incarnation: int = Field(ge=0)
    generation: int = Field(ge=0)
    sequence: int = Field(ge=1)
    at: datetime


class Submitted(_Event):
    """The service took the job."""

    type: Literal["submitted"] = "submitted"
    name: str


class PhaseChanged(_Event):
    """The service moved the job to another phase."""

    type: Literal["phase"] = "phase"
    phase: Phase
    code: str
    message: str


class ResizeRequested(_Event):
    """Somebody asked for another size, or took that back."""

    type: Literal["resize_requested"] = "resize_requested"
    workers: int | None = Field(description="null: as many as elasticity allows again.")
    at_samples: int | None = None


class Joining(_Event):
    """Workers start and warm up while the others train."""

    type: Literal["joining"] = "joining"
    workers: int = Field(description="How many are on their way.")


class Started(_Event):
    """The first generation of an incarnation trains."""

    type: Literal["started"] = "started"
    workers: int
    kappa: float
    batch: int
    samples: int = Field(description="Samples seen so far: more than 0 after a restore.")
    values: Values
    epoch_size: int = Field(description="Samples in an epoch.")
    total_samples: int
    bn_momentum: float | None = Field(description="BatchNorm's momentum at the base batch; null: no BatchNorm.")
    warnings: list[str] = Field([], description="Codes of the scaling rules.")


class Resizing(_Event):
    """A new generation was announced."""

    type: Literal["resizing"] = "resizing"
    workers: tuple[int, int]
    cause: str
    reason: str


class Resized(_Event):
    """A new generation trains. The fields of `views.Resize`."""

    type: Literal["resized"] = "resized"
    cause: str
    reason: str
    samples: int
    workers: tuple[int, int]
    kappa: tuple[float, float]
    batch: tuple[int, int]
    before: Values
    after: Values
    state_factors: dict[str, float]
    warnings: list[str]
    decide_s: float
    pause_s: float
    steps_lost: int
    samples_lost: int


class RankLost(_Event):
    """A worker died or was given up."""

    type: Literal["rank_lost"] = "rank_lost"
    rank: int
    reason: str


class Committed(_Event):
    """Samples [start, stop) of the run are trained on, by this generation. Ranges of a line are gapless."""

    type: Literal["committed"] = "committed"
    start: int
    stop: int


class Metrics(_Event):
    """Points of the training curves; x is samples seen."""

    type: Literal["metrics"] = "metrics"
    points: list[tuple[int, dict[str, float | None]]] = Field(description="A value that is not finite is null.")


class Evaluated(_Event):
    """Scores at a sample."""

    type: Literal["evaluated"] = "evaluated"
    samples: int
    target: dict[str, float | None] = Field(description="A score that is not finite is null.")
    ema: dict[str, float | None] | None


class CheckpointSaved(_Event):
    """A checkpoint is durable."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    samples: int
    name: str
    bytes: int


class CheckpointFailed(_Event):
    """A checkpoint could not be written; the one before is still there."""

    type: Literal["checkpoint_failed"] = "checkpoint_failed"
    samples: int
    message: str


class Rollback(_Event):
    """No worker survived: training goes on from a checkpoint; what was committed after it is void."""

    type: Literal["rollback"] = "rollback"
    to_samples: int


class Exported(_Event):
    """The final weights lie in the job's storage."""

    type: Literal["exported"] = "exported"
    artifacts: dict[str, str] = Field(description="Name -> URL.")


class Finished(_Event):
    """The controller has nothing left to do."""

    type: Literal["finished"] = "finished"
    outcome: Literal["succeeded", "failed", "cancelled", "paused"]
    code: str
    message: str
    traceback: str | None = None
    log_tail: list[str] = []


class Warned(_Event):
    """Something to know, nothing to stop for."""

    type: Literal["warning"] = "warning"
    code: str
    message: str


ServiceEvent = Submitted | PhaseChanged | ResizeRequested
WorkerEvent = (
    Joining
    | Started
    | Resizing
    | Resized
    | RankLost
    | Committed
    | Metrics
    | Evaluated
    | CheckpointSaved
    | CheckpointFailed
    | Rollback
    | Exported
    | Finished
    | Warned
)
Event = Annotated[ServiceEvent | WorkerEvent, Field(discriminator="type")]
EventType = Literal[
    "submitted",
    "phase",
    "resize_requested",
    "joining",
    "started",
    "resizing",
    "resized",
    "rank_lost",
    "evaluated",
    "checkpoint_saved",
    "checkpoint_failed",
    "rollback",
    "exported",
    "finished",
    "warning",
]
"""Of the events that are listed; what was committed is in the ledger, and metrics are the curves."""


class EventPage(Page[Event]):
    """A piece of a job's history."""

    last: str | None = Field(None, description="Cursor of the newest item: as `after` it leads to what happens later.")


_ADAPTER: TypeAdapter[Any] = TypeAdapter(Event)


def parse_event(payload: Any) -> ServiceEvent | WorkerEvent:
    """A dict as it was dumped -> its event."""
    event: ServiceEvent | WorkerEvent = _ADAPTER.validate_python(payload)
    return event
