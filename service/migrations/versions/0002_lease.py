"""Who of several services reconciles."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=40), primary_key=True, nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("renewals", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("lease")
