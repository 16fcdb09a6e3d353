"""The tables. What goes over the wire is in api_schemas; nothing here is sent as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Enum,
    Float,
    Index,
    Integer,
    UniqueConstraint,
    event,
    false,
)
from sqlalchemy.orm import Mapper, object_session
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from api_schemas.views import Phase


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """On the way in: to UTC."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """On the way out: marked as UTC where the database keeps no zone, from the session's zone where it does."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


PHASE: Any = Enum(
    Phase, native_enum=False, create_constraint=False, length=20, values_callable=lambda kind: [p.value for p in kind]
)
COUNT: Any = BigInteger
"""Samples: a long run on a big data set passes 2^31; and renewals, which never end."""
CURSOR: Any = Integer().with_variant(BigInteger, "postgresql")
"""SQLite counts up by itself only in a column of type INTEGER."""
LONGEST_NAME = 200
"""Of a curve, which a recipe names; PostgreSQL refuses a longer one, and SQLite takes it."""
JOB_KEY = "job.id"


class Job(SQLModel, table=True):
    """A job: what was asked for, and the state that its events fold into.

    Columns of JSON are replaced, never changed in place. `revision` and `updated_at` follow every change by themselves.
    """

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=100, index=True)
    recipe: str = Field(max_length=200, index=True)
    spec: dict[str, Any] = Field(sa_type=JSON)
    labels: dict[str, str] = Field(sa_type=JSON)
    priority: int
    storage: str  # URL of the job's own folder
    idempotency_key: str | None = Field(default=None, max_length=255, unique=True)
    body_digest: str | None = Field(default=None, max_length=64)

    phase: Phase = Field(default=Phase.QUEUED, sa_type=PHASE, index=True)
    since: datetime = Field(sa_type=UtcDateTime)
    code: str
    message: str
    traceback: str | None = None
    log_tail: list[str] = Field(default_factory=list, sa_type=JSON)

    target_workers: int | None = None  # of a resize; None: as many as elasticity allows
    target_requested_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    pending_resizes: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)  # PendingResize, by at_samples
    cancel_requested: bool = False

    incarnation: int = 0  # 0: never launched
    acked: int = 0  # highest sequence of this incarnation that is committed here
    service_sequence: int = 0  # highest sequence of incarnation 0: the service's own events

    generation: int = 0
    workers: int = 0
    kappa: float | None = None
    batch: int | None = None
    samples: int = Field(default=0, sa_type=COUNT)
    total_samples: int | None = Field(default=None, sa_type=COUNT)
    epoch_size: int | None = Field(default=None, sa_type=COUNT)
    bn_momentum: float | None = None
    values: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    evaluation: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    noise_scale: float | None = None  # None: not measured; infinite: the gradient is noise alone
    artifacts: dict[str, str] = Field(default_factory=dict, sa_type=JSON)

    leg_samples: int | None = Field(default=None, sa_type=COUNT)  # where the present size began, for the rate
    leg_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    progressed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # when `samples` was reached

    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    revision: int = 1


@event.listens_for(Job, "before_update")
def _revise(_mapper: Mapper[Job], _connection: Connection, job: Job) -> None:
    session = object_session(job)
    assert session is not None
    if session.is_modified(job):
        job.revision += 1
        job.updated_at = session.info["now"]()


class PendingResize(BaseModel):
    """An element of `Job.pending_resizes`: a resize that waits for its sample."""

    workers: int
    at_samples: int
    requested_at: datetime


class EventRow(SQLModel, table=True):
    """An event as it was reported. `id` is the cursor of GET events; within a job it grows in commit order."""

    __tablename__ = "event"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("job_id", "incarnation", "sequence"),
        Index("ix_event_job_id_id", "job_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=CURSOR)
    job_id: str = Field(max_length=32, foreign_key=JOB_KEY, ondelete="CASCADE")
    incarnation: int
    generation: int
    sequence: int
    type: str = Field(max_length=40)
    at: datetime = Field(sa_type=UtcDateTime)
    payload: dict[str, Any] = Field(sa_type=JSON)  # the event whole, as JSON


class MetricRow(SQLModel, table=True):
    """A point of a training curve; None: the value was not finite."""

    __tablename__ = "metric"
    __table_args__: ClassVar[Any] = {"sqlite_with_rowid": False}

    job_id: str = Field(primary_key=True, max_length=32, foreign_key=JOB_KEY, ondelete="CASCADE")
    name: str = Field(primary_key=True, max_length=LONGEST_NAME)
    samples: int = Field(primary_key=True, sa_type=COUNT)
    value: float | None = Field(sa_type=Float)


class BlockRow(SQLModel, table=True):
    """Points of a curve that follow each other, by the lowest and the highest of them; see `service.blocks`."""

    __tablename__ = "metric_block"
    __table_args__: ClassVar[Any] = {"sqlite_with_rowid": False}

    job_id: str = Field(primary_key=True, max_length=32, foreign_key=JOB_KEY, ondelete="CASCADE")
    name: str = Field(primary_key=True, max_length=LONGEST_NAME)
    level: int = Field(primary_key=True)
    start: int = Field(primary_key=True, sa_type=COUNT)  # sample of the first point
    stop: int = Field(sa_type=COUNT)  # and of the last
    low_at: int = Field(sa_type=COUNT)
    low: float | None = Field(sa_type=Float)  # None: no value is finite
    high_at: int = Field(sa_type=COUNT)
    high: float | None = Field(sa_type=Float)


class ResizeRow(SQLModel, table=True):
    """A change of size that happened. `id` counts from 1 within the job."""

    __tablename__ = "resize"

    job_id: str = Field(primary_key=True, max_length=32, foreign_key=JOB_KEY, ondelete="CASCADE")
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    samples: int = Field(sa_type=COUNT)
    payload: dict[str, Any] = Field(sa_type=JSON)  # views.Resize


class LedgerRow(SQLModel, table=True):
    """Committed samples [start, stop) of the run. Ranges may overlap: then samples were trained on twice."""

    __tablename__ = "ledger"
    __table_args__: ClassVar[Any] = (Index("ix_ledger_job_id_start", "job_id", "start"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=CURSOR)
    job_id: str = Field(max_length=32, foreign_key=JOB_KEY, ondelete="CASCADE")
    start: int = Field(sa_type=COUNT)
    stop: int = Field(sa_type=COUNT)
    incarnation: int
    generation: int


class RecipeRow(SQLModel, table=True):
    """A recipe of the catalogue, as the nodes exported it."""

    __tablename__ = "recipe"

    name: str = Field(primary_key=True, max_length=200)
    summary: str
    config_schema: dict[str, Any] = Field(sa_type=JSON)
    needs_ema: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class ClusterRow(SQLModel, table=True):
    """The cluster as the reconciler last saw it: the one row with id 1."""

    __tablename__ = "cluster"

    id: int = Field(default=1, primary_key=True)
    picture: dict[str, Any] = Field(sa_type=JSON)  # views.ClusterView
    seen_at: datetime = Field(sa_type=UtcDateTime)


class LeaseRow(SQLModel, table=True):
    """Who does what only one process at a time may do; see `service.lease`."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True, max_length=40)
    holder: str = Field(max_length=200)  # empty: nobody
    renewals: int = Field(sa_type=COUNT)


class TokenRow(SQLModel, table=True):
    """Who may use the API. The secret is with its owner alone."""

    __tablename__ = "token"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=100)
    scope: str = Field(max_length=20)
    digest: str = Field(max_length=64)  # SHA-256 of the secret, in hexadecimal digits
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # None: never
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
