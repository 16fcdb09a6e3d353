"""A process that wants the lease, and while it has it writes down when it worked: `HOLDER CLOCK` lines, for tests."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from service.db import Database, connect
from service.lease import Lease, Term, reign

TERMS = {"usual": Term(), "short": Term(term=2, margin=0.5, renew=0.5, look=0.1)}


async def contend(url: str, term: str, notes: Path, holder: str) -> None:
    async def work() -> None:
        while True:
            with notes.open("a") as file:
                file.write(f"{holder} {time.monotonic()}\n")
            await asyncio.sleep(0.05)

    database = Database(connect(url), lambda: datetime.now(UTC))
    await reign(Lease(database, holder, time.monotonic, TERMS[term]), work)


if __name__ == "__main__":
    asyncio.run(contend(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
