"""A database of its own for whatever a test serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from service.db import Database, connect, migrate


@contextmanager
def fresh_database(url: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[Database]:
    """An empty one, migrated, whose connections end with the block."""
    engine = connect(url)
    migrate(engine)
    yield Database(engine, now)
    engine.dispose()
