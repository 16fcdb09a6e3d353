"""The present revisions of jobs, read for all who ask at once: what makes polling cheap."""

from __future__ import annotations

import asyncio

from anyio.to_thread import run_sync

from service import jobs
from service.db import Database
from service.jobs import found

Answer = asyncio.Future[int | None]


class Revisions:
    """One read at a time, for all that was asked meanwhile. No answer is older than its question.

    Belongs to one event loop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, Answer] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, job_id: str) -> int:
        """The number of the job's present state. Raises NotFound, Unavailable."""
        answer = self._asked.get(job_id)
        if answer is None:
            answer = self._asked[job_id] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_note)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return found(await asyncio.shield(answer), job_id)  # one who leaves must not take it from the others

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                known = await run_sync(jobs.revisions, self._database, list(asked))
            except Exception as error:
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for job_id, answer in asked.items():
                    answer.set_result(known.get(job_id))
        self._reading = None


def _note(answer: Answer) -> None:
    """An error is taken note of even if all who asked have left."""
    answer.exception()
