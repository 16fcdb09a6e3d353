"""How a worker of `workers.restarts` tells its controller how it is, until its last words are durable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from api_schemas.exchange import Launch
from workers.failures import failure_of
from workers.journal import Journal
from workers.membership import Plan
from workers.restarts import Reply
from workers.status import Failure, Phase, Status
from workers.trainer import Trainer
from workers.worklog import Worklog

TELL_S = 0.25
"""How often a worker tells how it is."""
FAREWELL_S = 60.0
"""How long a worker that is done waits for its last words to be durable."""

Tell = Callable[[str, Status], Reply | None]
"""Tells the controller how a worker is; None: it does not answer at present."""


class Attendance:
    """One worker of one generation; a context in which it trains."""

    def __init__(self, launch: Launch, plan: Plan, rank: int, tell: Tell, *, host: str, node: str) -> None:
        """`host` is the address of the node that it lives on, `node` Ray's id of it."""
        self.journal = Journal()
        self.phase = Phase.WARMING
        self.trainer: Trainer | None = None
        self._plan = plan
        self._worker = plan.members[rank]
        self._job = launch.job
        self._host = host
        self._node = node
        self._tell = tell
        self._worklog = Worklog.of(launch, self._worker)
        self._failure: Failure | None = None
        self._reply = Reply(heard=0, seen=0, leave_at=None)
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell_on, name="attendance", daemon=True)

    def __enter__(self) -> Attendance:
        self._worklog.begin(self._job, self._host)
        self._teller.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """A RuntimeError may be the sign of a lost peer: that is for Ray Train. The rest is the end of the job."""
        if error is not None and not isinstance(error, RuntimeError):
            self._failure = failure_of(error, self._worklog.tail)
            self.phase = Phase.FAILED
        self._worklog.store()
        self._over.set()
        self.journal.nudge()
        if self._failure is not None or error is None:
            self._teller.join(FAREWELL_S)

    def is_to_leave(self, samples: int) -> bool:
        """Whether the group shall end after so many samples."""
        leave_at = self._reply.leave_at
        return leave_at is not None and samples >= leave_at

    def _tell_on(self) -> None:
        """Until the end was told and all records are durable, or nobody wants to know."""
        version, over = -1, False
        while not (over and not self.journal.records(self._reply.heard)) and not self._reply.stale:
            self.journal.wait(version, TELL_S)
            version, over = self.journal.version, self._over.is_set()
            reply = self._tell(self._worker, self._status())
            if reply is None:
                over = False
                time.sleep(TELL_S)
            else:
                self._reply = reply

    def _status(self) -> Status:
        return Status(
            phase=self.phase,
            node=self._node,
            generation=self._plan.generation,
            members=self._plan.members,
            samples=self.trainer.replica.samples if self.trainer else -1,
            committed=self.trainer.committed if self.trainer else -1,
            step_s=self.trainer.step_s if self.trainer else 0.0,
            version=self.journal.version,
            records=tuple(self.journal.records(self._reply.heard)),
            points=tuple(self.journal.points(self._reply.seen)),
            failure=self._failure,
        )
