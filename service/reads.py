"""What many ask for at once, read together: what makes polling cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from anyio.to_thread import run_sync

from service.jobs import found

Value = TypeVar("Value")


class Reads(Generic[Value]):
    """One read at a time, for all jobs that were asked for meanwhile. No answer is older than its question.

    Belongs to one event loop.
    """

    def __init__(self, read: Callable[[Sequence[str]], Mapping[str, Value]]) -> None:
        """`read` blocks, and leaves out the jobs that there are not; it may raise Unavailable."""
        self._read = read
        self._asked: dict[str, asyncio.Future[Value | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, job_id: str) -> Value:
        """What is read of this job. Raises NotFound, Unavailable."""
        answer = self._asked.get(job_id)
        if answer is None:
            answer = self._asked[job_id] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_note)
        if self._reading is None:
            self._reading = asyncio.create_task(self._go_on())
        return found(await asyncio.shield(answer), job_id)  # one who leaves must not take it from the others

    async def _go_on(self) -> None:
        while self._asked:
            await asyncio.sleep(0)  # who asks in the same turn of the loop is read along
            asked, self._asked = self._asked, {}
            try:
                known = await run_sync(self._read, list(asked))
            except Exception as error:
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for job_id, answer in asked.items():
                    answer.set_result(known.get(job_id))
        self._reading = None


def _note(answer: asyncio.Future[Value | None]) -> None:
    """An error is taken note of even if all who asked have left."""
    answer.exception()
