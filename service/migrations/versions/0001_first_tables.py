"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STAMP = sa.DateTime(timezone=True)
COUNT = sa.BigInteger()
CURSOR = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
PHASE = sa.String(length=20)


def upgrade() -> None:
    """Make them."""
    op.create_table("job", *_asked(), *_status(), *_training(), sa.UniqueConstraint("idempotency_key"))
    for name in ("name", "phase", "recipe"):
        op.create_index(f"ix_job_{name}", "job", [name])
    _history()
    _surroundings()


def downgrade() -> None:
    """Drop them."""
    for name in ("cluster", "recipe", "resize", "metric", "ledger", "event", "job"):
        op.drop_table(name)


def _column(name: str, kind: Any, *, null: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null, **options)


def _asked() -> list[sa.Column[Any]]:
    return [
        _column("id", sa.String(length=32), primary_key=True),
        _column("name", sa.String(length=100)),
        _column("recipe", sa.String(length=200)),
        _column("spec", sa.JSON()),
        _column("labels", sa.JSON()),
        _column("priority", sa.Integer()),
        _column("storage", sa.String()),
        _column("idempotency_key", sa.String(length=255), null=True),
        _column("body_digest", sa.String(length=64), null=True),
        _column("target_workers", sa.Integer(), null=True),
        _column("target_requested_at", STAMP, null=True),
        _column("pending_resizes", sa.JSON()),
        _column("cancel_requested", sa.Boolean()),
    ]


def _status() -> list[sa.Column[Any]]:
    return [
        _column("phase", PHASE),
        _column("since", STAMP),
        _column("code", sa.String()),
        _column("message", sa.String()),
        _column("traceback", sa.String(), null=True),
        _column("log_tail", sa.JSON()),
        _column("incarnation", sa.Integer()),
        _column("acked", sa.Integer()),
        _column("service_sequence", sa.Integer()),
        _column("created_at", STAMP),
        _column("updated_at", STAMP),
        _column("revision", sa.Integer()),
    ]


def _training() -> list[sa.Column[Any]]:
    return [
        _column("generation", sa.Integer()),
        _column("workers", sa.Integer()),
        _column("kappa", sa.Float(), null=True),
        _column("batch", sa.Integer(), null=True),
        _column("samples", COUNT),
        _column("total_samples", COUNT, null=True),
        _column("epoch_size", COUNT, null=True),
        _column("bn_momentum", sa.Float(), null=True),
        _column("values", sa.JSON()),
        _column("evaluation", sa.JSON(), null=True),
        _column("noise_scale", sa.Float(), null=True),
        _column("artifacts", sa.JSON()),
        _column("leg_samples", COUNT, null=True),
        _column("leg_at", STAMP, null=True),
        _column("progressed_at", STAMP, null=True),
    ]


def _of_job(**options: Any) -> sa.Column[Any]:
    return sa.Column(
        "job_id", sa.String(length=32), sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False, **options
    )


def _history() -> None:
    op.create_table(
        "event",
        _column("id", CURSOR, primary_key=True),
        _of_job(),
        _column("incarnation", sa.Integer()),
        _column("generation", sa.Integer()),
        _column("sequence", sa.Integer()),
        _column("type", sa.String(length=40)),
        _column("at", STAMP),
        _column("payload", sa.JSON()),
        sa.UniqueConstraint("job_id", "incarnation", "sequence"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_job_id_id", "event", ["job_id", "id"])
    op.create_table(
        "ledger",
        _column("id", CURSOR, primary_key=True),
        _of_job(),
        _column("start", COUNT),
        _column("stop", COUNT),
        _column("incarnation", sa.Integer()),
        _column("generation", sa.Integer()),
    )
    op.create_index("ix_ledger_job_id_start", "ledger", ["job_id", "start"])
    op.create_table(
        "metric",
        _of_job(primary_key=True),
        _column("name", sa.String(length=200), primary_key=True),
        _column("samples", COUNT, primary_key=True),
        _column("value", sa.Float(), null=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "resize",
        _of_job(primary_key=True),
        _column("id", sa.Integer(), primary_key=True, autoincrement=False),
        _column("samples", COUNT),
        _column("payload", sa.JSON()),
    )


def _surroundings() -> None:
    op.create_table(
        "recipe",
        _column("name", sa.String(length=200), primary_key=True),
        _column("summary", sa.String()),
        _column("config_schema", sa.JSON()),
    )
    op.create_table(
        "cluster",
        _column("id", sa.Integer(), primary_key=True),
        _column("picture", sa.JSON()),
        _column("seen_at", STAMP),
    )
