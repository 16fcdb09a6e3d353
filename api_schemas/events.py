"""What happens to a job, as a discriminated union on `type`.

Every event carries its job, the incarnation and generation it belongs to, and a sequence number that
is unique within (job, incarnation). Incarnation 0 is the service's own: submission, phases, requests.
The others are written by the job's controller; a later incarnation fences off every earlier one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api_schemas.views import (
    NOT_FINITE,
    Batch,
    Cause,
    Change,
    Codes,
    JobId,
    Kappa,
    Page,
    Pair,
    Phase,
    Reason,
    Samples,
    Scores,
    Values,
    Workers,
)

Code = Annotated[str, Field(description="Why, for programs.")]
Message = Annotated[str, Field(description="Why, as a sentence.")]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)

    job: JobId
    incarnation: int = Field(ge=0, description="Counts the controllers of the job; 0: the service itself says it.")
    generation: int = Field(ge=0, description="Counts the sets of workers that train together; 0: before the first.")
    sequence: int = Field(ge=1, description="Counts what an incarnation said.")
    at: datetime = Field(description="When it happened, in UTC.")
    type: str


class Submitted(_Event):
    """The service took the job."""

    type: Literal["submitted"] = "submitted"
    name: str = Field(description="The job's.")


class PhaseChanged(_Event):
    """The service moved the job to another phase."""

    type: Literal["phase"] = "phase"
    phase: Phase
    code: Code
    message: Message


class ResizeRequested(_Event):
    """Somebody asked for another size, or took that back."""

    type: Literal["resize_requested"] = "resize_requested"
    workers: int | None = Field(description="null: as many as elasticity allows again.")
    at_samples: int | None = Field(None, description="Not before so many samples were seen; null: at once.")


class Updated(_Event):
    """Somebody changed what may change while a job lives."""

    type: Literal["updated"] = "updated"
    changes: dict[str, tuple[Any, Any]] = Field(
        description="What changed, before and after, by its place in the spec: `priority`, `labels`, "
        "`elasticity.workers` or `elasticity.kappa`."
    )


class Joining(_Event):
    """Workers start and warm up while the others train."""

    type: Literal["joining"] = "joining"
    workers: int = Field(description="How many are on their way.")


class Started(_Event):
    """The first generation of an incarnation trains."""

    type: Literal["started"] = "started"
    workers: Workers
    kappa: Kappa
    batch: Batch
    samples: int = Field(description="Samples seen so far: more than 0 after a restore.")
    values: Values
    epoch_size: int = Field(description="Samples in an epoch.")
    total_samples: int = Field(description="Samples of the whole training.")
    bn_momentum: float | None = Field(description="BatchNorm's momentum at the base batch; null: no BatchNorm.")
    warnings: Codes = []


class Resizing(_Event):
    """A new generation was announced."""

    type: Literal["resizing"] = "resizing"
    workers: Pair
    cause: Cause
    reason: Reason


class Resized(Change, _Event):
    """A new generation trains."""

    type: Literal["resized"] = "resized"


class RankLost(_Event):
    """A worker died or was given up."""

    type: Literal["rank_lost"] = "rank_lost"
    rank: int = Field(description="Which one, among those of its generation, from 0.")
    reason: Reason


class Committed(_Event):
    """Samples [start, stop) of the run are trained on, by this generation. Ranges of a line are gapless."""

    type: Literal["committed"] = "committed"
    start: int = Field(description="Samples seen before.")
    stop: int = Field(description="Samples seen after.")


class Metrics(_Event):
    """Points of the training curves; x is samples seen."""

    type: Literal["metrics"] = "metrics"
    points: list[tuple[int, dict[str, float | None]]] = Field(
        description="Samples seen, and values by the name of their curve; a value that is not finite is null."
    )


class Evaluated(_Event):
    """Scores at a sample."""

    type: Literal["evaluated"] = "evaluated"
    samples: Samples
    target: Scores = Field(description=f"Of the weights that are trained, by name. {NOT_FINITE}")
    ema: Scores | None = Field(description="The same of their EMA; null: the job has none.")


class CheckpointSaved(_Event):
    """A checkpoint is durable."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    samples: Samples
    name: str = Field(description="Within the job.")
    bytes: int = Field(description="Size of all its files.")


class CheckpointFailed(_Event):
    """A checkpoint could not be written; the one before is still there."""

    type: Literal["checkpoint_failed"] = "checkpoint_failed"
    samples: Samples
    message: Message


class Rollback(_Event):
    """No worker survived: training goes on from a checkpoint; what was committed after it is void."""

    type: Literal["rollback"] = "rollback"
    to_samples: int = Field(description="Samples that the checkpoint has seen.")
    samples_lost: int | None = Field(None, description="Those after it, which are trained on again; null: not told.")


class Exported(_Event):
    """The final weights lie in the job's storage."""

    type: Literal["exported"] = "exported"
    artifacts: dict[str, str] = Field(description="Where each lies in the storage, by name.")


class Finished(_Event):
    """The controller has nothing left to do."""

    type: Literal["finished"] = "finished"
    outcome: Literal["succeeded", "failed", "cancelled", "paused"] = Field(description="How it ended.")
    code: Code
    message: Message
    traceback: str | None = Field(None, description="Of a failure.")
    log_tail: list[str] = Field([], description="The last log lines before a failure.")


class Warned(_Event):
    """Something to know, nothing to stop for."""

    type: Literal["warning"] = "warning"
    code: Code
    message: Message


ServiceEvent = Submitted | PhaseChanged | ResizeRequested | Updated
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
Event = Annotated[
    ServiceEvent | WorkerEvent,
    Field(discriminator="type", description="Something that happened to a job; `type` says what."),
]
EventType = Literal[
    "submitted",
    "phase",
    "resize_requested",
    "updated",
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
