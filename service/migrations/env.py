"""Run by alembic with the connection that `service.db.migrate` opened."""

from typing import Any, Literal

from alembic import context
from sqlmodel import AutoString, SQLModel

from service.tables import UtcDateTime


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """In migrations, plain types instead of the classes of today, which a later version may not have."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})" if item.length else "sa.String()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_item=render,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
