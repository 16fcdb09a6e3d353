"""What the service says: of jobs, resizes, the ledger, the cluster and its recipes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field

from api_schemas.jobs import JobSpec

SHORT_OF_SLOTS = "short_of_slots"
"""Code of a job that runs on fewer workers than it may have, for want of room."""
RESUME = "resume"
"""Cause of the resize by which a paused job goes on."""
Values = Annotated[
    dict[str, Any],
    Field(
        description="Hyperparameters by name: those of the optimizer, and `ema_momentum` (rho in the paper of the EMA "
        "scaling rule), `bn_momentum` and `clip_norm` where the job has them."
    ),
]
Samples = Annotated[int, Field(description="Samples that the training has seen by then, since its first one.")]
Kappa = Annotated[float, Field(description="Batch multiplier: the batch over the base batch that was tuned.")]
Batch = Annotated[int, Field(description="Samples per optimizer step, of all workers together.")]
Generation = Annotated[
    int, Field(description="Counts the sets of workers that train together: each change of size begins a new one.")
]
Workers = Annotated[int, Field(description="Workers that train.")]
Pair = Annotated[tuple[int, int], Field(description="Before and after.")]
Kappas = Annotated[tuple[float, float], Field(description="Batch multiplier before and after.")]
StateFactors = Annotated[
    dict[str, float], Field(description="What the optimizer's state is multiplied with at the change, by its name.")
]
Codes = Annotated[list[str], Field(description="Codes of what the scaling rules warn of, such as `step_coarse`.")]
Scores = dict[str, float | None]
NOT_FINITE = "A score that is not finite is null."
Cause = Annotated[
    str, Field(description="Why, for programs: api, allocator, capacity, drain, rank_lost, joined, resume, ...")
]
Reason = Annotated[str, Field(description="Why, as a sentence.")]
JobId = Annotated[str, Field(description="The job's id, as the addresses have it.")]
Revision = Annotated[int, Field(description="Grows with every change of what is said of the job.")]
Created = Annotated[datetime, Field(description="When it was submitted, in UTC.")]
Updated = Annotated[datetime, Field(description="When something of it changed last, in UTC.")]


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
    since: datetime = Field(description="When the phase began, in UTC.")
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

    samples: Samples = 0
    total_samples: int | None = Field(None, description="The whole training; null until the data set was read.")
    epoch: float = Field(0.0, description="The same in epochs: 1.5 is in the middle of the second.")
    eta_s: float | None = Field(None, description="Seconds until the end at the present pace; null: not known yet.")


class Evaluation(BaseModel):
    """Scores of the target weights and of their EMA at the same sample."""

    samples: Samples
    target: Scores = Field(description=f"Of the weights that are trained, by name. {NOT_FINITE}")
    ema: Scores | None = Field(None, description="The same of their EMA; null: the job has none.")


class JobRow(BaseModel):
    """A job in a list."""

    id: JobId
    name: str = Field(description="As its spec has it; several jobs may have the same.")
    recipe: str = Field(description="The recipe's name.")
    status: JobStatus
    priority: int = Field(description="-1000 to 1000; higher goes first.")
    labels: dict[str, str] = Field(description="What the job was labelled with.")
    workers: Workers
    kappa: Kappa | None = Field(description="Batch multiplier in force; null: it has not trained yet.")
    progress: Progress
    created_at: Created
    updated_at: Updated
    revision: Revision


class JobChanges(BaseModel):
    """What is new in a page of jobs: a message of its stream."""

    items: list[JobRow] = Field(description="Rows that changed or came in.")
    ids: list[str] | None = Field(description="All jobs of the page in their order; null: the same as before.")
    next: str | None = Field(description="Goes into `after` for the page that follows; null: there is none.")


class PlannedResize(BaseModel):
    """A size that was asked for, and waits for its sample."""

    workers: int = Field(description="How many.")
    at_samples: int = Field(description="Not before so many samples were seen.")


class JobView(BaseModel):
    """A job, whole."""

    id: JobId
    name: str = Field(description="As its spec has it; several jobs may have the same.")
    spec: JobSpec
    status: JobStatus
    workers: int = Field(description="Workers that train now.")
    target_workers: int | None = Field(description="Asked for by a resize; null: as many as elasticity allows.")
    pending_resizes: list[PlannedResize] = Field([], description="Those that wait for their sample, the next first.")
    kappa: Kappa | None = Field(description="Batch multiplier in force; null: it has not trained yet.")
    batch: Batch | None = Field(description="Samples per optimizer step, of all workers together.")
    generation: Generation
    progress: Progress
    values: Values
    evaluation: Evaluation | None = Field(description="The newest scores; null: there are none yet.")
    noise_scale: float | None = Field(description="B_noise in samples, where it is measured.")
    artifacts: dict[str, str] = Field(description="What the job exported: by name, the address that downloads it.")
    created_at: Created
    updated_at: Updated
    revision: Revision


Foreseen = Annotated[list[str], Field(description="Codes of the scaling rules; sentences on what else is to be known.")]


class ResizeAnswer(JobView):
    """A job whose size somebody has just asked for, and what a dry run would have warned of."""

    warnings: Foreseen = []


class Change(BaseModel):
    """What a change of size did."""

    cause: Cause
    reason: Reason
    samples: Samples
    workers: Pair
    kappa: Kappas
    batch: Pair
    before: Values
    after: Values
    state_factors: StateFactors
    warnings: Codes
    decide_s: float = Field(description="Seconds from the request to the plan.")
    pause_s: float = Field(
        description="Seconds from the end of the last step before to the start of the first after. With the cause "
        "`resume` that is all the time for which the job was paused, and then waited for workers."
    )
    steps_lost: int = Field(description="Optimizer steps that had to be done again.")
    samples_lost: int = Field(description="Samples of these steps.")


class Resize(Change):
    """A row of GET /jobs/{id}/resizes: what one change of size did."""

    id: int = Field(description="Grows from one to the next; what `after` counts by.")
    at: datetime = Field(description="When the new size began to train, in UTC.")
    generation: Generation


class ResizePreview(BaseModel):
    """What a resize would change; nothing has happened."""

    workers: Pair
    kappa: Kappas
    batch: Pair
    before: Values
    after: Values
    state_factors: StateFactors
    warnings: Foreseen


class LedgerEpoch(BaseModel):
    """Committed sample ranges of one epoch: positions in its order, half open, each with its generation."""

    epoch: int = Field(description="From 0.")
    samples: int = Field(description="Samples of this epoch that were trained on.")
    ranges: list[tuple[int, int, int]] = Field(description="[first, end, generation]: positions first to end - 1.")


class Ledger(BaseModel):
    """What was trained on, on the surviving line."""

    epochs: list[LedgerEpoch] = Field(description="Those that were begun, the first one first.")
    samples_lost: int = Field(description="Samples that no range has, though later ones were trained on; 0 is right.")
    samples_repeated: int = Field(description="Samples that more than one range has; 0 is right.")


class LogLines(BaseModel):
    """What is new in a job's log: a message of its stream."""

    lines: list[str] = Field(description="Without their ends, and each with its worker where several are asked for.")


class Point(NamedTuple):
    """A point of a curve."""

    samples: int
    value: float | None


class Curves(BaseModel):
    """Training curves by name: points (samples seen, value), thinned to the number asked for."""

    series: dict[str, list[Point]] = Field(
        description="A value that is not finite is null. A curve that was asked for by name and has no points (yet, or "
        "in that range) is an empty list."
    )


class Checkpoint(BaseModel):
    """A durable checkpoint."""

    name: str = Field(description="Within the job, as its files' addresses have it.")
    samples: Samples
    bytes: int = Field(description="Size of all its files.")
    saved_at: datetime = Field(description="When it was durable, in UTC.")
    files: list[str] = Field([], description="GET /jobs/{id}/checkpoints/{name}/{file} downloads one.")


class Artifact(BaseModel):
    """A file that the job exported; GET /jobs/{id}/artifacts/{name} downloads it."""

    name: str = Field(description="Within the job, with folders where it has some.")
    bytes: int = Field(description="Its size.")
    url: str = Field(description="The address that downloads it, on this service: `/v1/jobs/{id}/artifacts/{name}`.")
    location: str = Field(description="Where it lies in the job's storage, for whoever reaches that: a path or an URL.")


class Health(BaseModel):
    """Answer of /healthz and /readyz."""

    status: Literal["ok", "degraded"] = Field(description="degraded: it answers, and the cluster is away.")
    checks: dict[str, str] = Field({}, description="What was looked at, and `ok` or what is wrong.")


class Node(BaseModel):
    """One node of the cluster."""

    id: str = Field(description="Ray's.")
    address: str = Field(description="Its IP address.")
    alive: bool = Field(description="Whether it takes part.")
    cpu: float = Field(description="CPUs that it offers.")
    gpu: float = Field(description="GPUs that it offers.")
    cpu_used: float = Field(description="CPUs that are taken, by jobs or by others.")
    gpu_used: float = Field(description="GPUs that are taken, by jobs or by others.")
    draining: bool = Field(False, description="It is to leave: nothing is started on it any more.")
    drains_at: datetime | None = Field(None, description="When it may be gone; null: nobody said.")


class QueuedJob(BaseModel):
    """A job that waits, and why."""

    id: JobId
    name: str = Field(description="As its spec has it.")
    priority: int = Field(description="-1000 to 1000; higher goes first.")
    message: str = Field(description="Why it waits, as a sentence.")


Connected = Annotated[bool, Field(description="Whether the reconciler reaches the cluster.")]
SeenAt = Annotated[datetime | None, Field(description="When it last looked, in UTC; null: never.")]


class ClusterView(BaseModel):
    """The cluster as the reconciler last saw it."""

    connected: Connected
    seen_at: SeenAt
    nodes: list[Node] = Field(description="All that Ray knows of.")
    queue: list[QueuedJob] = Field(description="Jobs that wait for workers, the next first.")


class ClusterChanges(BaseModel):
    """What is new in the cluster: a message of its stream."""

    connected: Connected
    seen_at: SeenAt
    nodes: list[Node] = Field(description="Those that changed or came in.")
    ids: list[str] | None = Field(description="All nodes in their order; null: the same as before.")
    queue: list[QueuedJob] | None = Field(description="The whole queue; null: the same as before.")


class RecipeInfo(BaseModel):
    """A recipe of the catalogue."""

    name: str = Field(description="What `recipe.name` of a job says.")
    summary: str = Field(description="What is trained, in a sentence.")
    config_schema: dict[str, Any] = Field(description="JSON schema of `recipe.config`.")
    needs_ema: bool = Field(False, description="It learns from a teacher, the EMA: a job of it must have one.")


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A piece of a list; `next` goes into `after` for the piece that follows."""

    items: list[T] = Field(description="In the order that the address says.")
    next: str | None = Field(None, description="Null: nothing follows.")
