"""What the service says: of jobs, resizes, the ledger, the cluster and its recipes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field

from api_schemas.jobs import JobSpec

SHORT_OF_SLOTS = "short_of_slots"
"""Code of a job that runs on fewer workers than it may have, for want of room."""
Values = dict[str, Any]
"""Hyperparameters by name: what `scaling.derive` returns, and ema_momentum, bn_momentum, clip_norm where used."""


class Phase(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    RESIZING = "resizing"
    RECOVERING = "recovering"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Nothing follows this phase."""
        return self in (Phase.CANCELLED, Phase.SUCCEEDED, Phase.FAILED)


class JobStatus(BaseModel):
    """The phase, since when, and why."""

    phase: Phase
    since: datetime
    code: str = Field(description="Why, for programs: `waiting_for_slots`, `short_of_slots`, `recipe_raised`, ...")
    message: str = Field(description="Why, as a sentence that a person can act on.")
    traceback: str | None = Field(None, description="Of a failure.")
    log_tail: list[str] = Field([], description="The last log lines before a failure.")

    @property
    def is_terminal(self) -> bool:
        """The job has ended."""
        return self.phase.is_terminal

    @property
    def falls_short(self) -> bool:
        """It runs on fewer workers than it may have, for want of room."""
        return self.code == SHORT_OF_SLOTS


class Progress(BaseModel):
    """How far the training is, in samples."""

    samples: int = 0
    total_samples: int | None = Field(None, description="Null until the data set was read.")
    epoch: float = 0.0
    eta_s: float | None = None


class Evaluation(BaseModel):
    """Scores of the target weights and of their EMA at the same sample."""

    samples: int
    target: dict[str, float | None] = Field(description="A score that is not finite is null.")
    ema: dict[str, float | None] | None = None


class JobRow(BaseModel):
    """A job in a list."""

    id: str
    name: str
    recipe: str
    status: JobStatus
    priority: int
    labels: dict[str, str]
    workers: int
    kappa: float | None
    progress: Progress
    created_at: datetime
    updated_at: datetime
    revision: int


class JobChanges(BaseModel):
    """What is new in a page of jobs: a message of its stream."""

    items: list[JobRow] = Field(description="Rows that changed or came in.")
    ids: list[str] | None = Field(description="All jobs of the page in their order; null: the same as before.")
    next: str | None


class PlannedResize(BaseModel):
    """A size that was asked for, and waits for its sample."""

    workers: int
    at_samples: int


class JobView(BaseModel):
    """A job, whole."""

    id: str
    name: str
    spec: JobSpec
    status: JobStatus
    workers: int = Field(description="Workers that train now.")
    target_workers: int | None = Field(description="Asked for by a resize; null: as many as elasticity allows.")
    pending_resizes: list[PlannedResize] = Field([], description="Those that wait for their sample, the next first.")
    kappa: float | None
    batch: int | None = Field(description="Samples per optimizer step.")
    generation: int
    progress: Progress
    values: Values = Field(description="What the trainer applies now.")
    evaluation: Evaluation | None
    noise_scale: float | None = Field(description="B_noise in samples, where it is measured.")
    artifacts: dict[str, str] = Field(description="What the job exported, name -> URL.")
    created_at: datetime
    updated_at: datetime
    revision: int


class Resize(BaseModel):
    """A row of GET /jobs/{id}/resizes: what one change of size did."""

    id: int
    at: datetime
    cause: str = Field(description="api, allocator, capacity, drain, rank_lost, joined, resume, ...")
    reason: str
    generation: int
    samples: int
    workers: tuple[int, int]
    kappa: tuple[float, float]
    batch: tuple[int, int]
    before: Values
    after: Values
    state_factors: dict[str, float]
    warnings: list[str]
    decide_s: float = Field(description="From the request to the plan.")
    pause_s: float = Field(description="From the end of the last step before to the start of the first after.")
    steps_lost: int
    samples_lost: int


class ResizePreview(BaseModel):
    """What a resize would change; nothing has happened."""

    workers: tuple[int, int]
    kappa: tuple[float, float]
    batch: tuple[int, int]
    before: Values
    after: Values
    state_factors: dict[str, float]
    warnings: list[str] = Field(description="Codes of the scaling rules; sentences on what else is to be known.")


class LedgerEpoch(BaseModel):
    """Committed sample ranges of one epoch: positions in its order, half open, each with its generation."""

    epoch: int
    samples: int
    ranges: list[tuple[int, int, int]]


class Ledger(BaseModel):
    """What was trained on, on the surviving line."""

    epochs: list[LedgerEpoch]
    samples_lost: int
    samples_repeated: int


class Point(NamedTuple):
    """A point of a curve."""

    samples: int
    value: float | None


class Curves(BaseModel):
    """Training curves by name: points (samples seen, value), thinned to the number asked for."""

    series: dict[str, list[Point]] = Field(description="A value that is not finite is null.")


class Checkpoint(BaseModel):
    """A durable checkpoint."""

    name: str
    samples: int
    bytes: int
    saved_at: datetime
    files: list[str] = Field([], description="GET /jobs/{id}/checkpoints/{name}/{file} downloads one.")


class Artifact(BaseModel):
    """A file that the job exported; GET /jobs/{id}/artifacts/{name} downloads it."""

    name: str
    bytes: int
    url: str = Field(description="Where it lies in the job's storage.")


class Health(BaseModel):
    """Answer of /healthz and /readyz."""

    status: Literal["ok", "degraded"]
    checks: dict[str, str] = Field({}, description="What was looked at, and `ok` or what is wrong.")


class Node(BaseModel):
    """One node of the cluster."""

    id: str
    address: str
    alive: bool
    cpu: float
    gpu: float
    cpu_used: float
    gpu_used: float
    draining: bool = Field(False, description="It is to leave: nothing is started on it any more.")
    drains_at: datetime | None = Field(None, description="When it may be gone; null: nobody said.")


class QueuedJob(BaseModel):
    """A job that waits, and why."""

    id: str
    name: str
    priority: int
    message: str


class ClusterView(BaseModel):
    """The cluster as the reconciler last saw it."""

    connected: bool
    seen_at: datetime | None
    nodes: list[Node]
    queue: list[QueuedJob]


class ClusterChanges(BaseModel):
    """What is new in the cluster: a message of its stream."""

    connected: bool
    seen_at: datetime | None
    nodes: list[Node] = Field(description="Those that changed or came in.")
    ids: list[str] | None = Field(description="All nodes in their order; null: the same as before.")
    queue: list[QueuedJob] | None = Field(description="The whole queue; null: the same as before.")


class RecipeInfo(BaseModel):
    """A recipe of the catalogue."""

    name: str
    summary: str
    config_schema: dict[str, Any]
    needs_ema: bool = Field(False, description="It learns from a teacher, the EMA: a job of it must have one.")


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A piece of a list; `next` goes into `after` for the piece that follows."""

    items: list[T]
    next: str | None = None
