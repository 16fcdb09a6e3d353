"""One worker's life: it warms up, and trains generation after generation, until it is left out.

Two sides meet here. The training side is a thread of its own, which nothing interrupts between two votes. The control
side, called from any other thread, answers at once: it looks (`poll`), announces the next generation (`announce`), and
cuts a broken one off (`sever`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from api_schemas.exchange import Launch
from workers.archive import Archive
from workers.failures import failure_of
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, MeshBroken, Rendezvous
from workers.pulse import Pulse
from workers.status import Activity, Failure, Phase, Status
from workers.trainer import Trainer


class Member:
    """A worker of a job. `tail` returns its last log lines, for the report of a failure."""

    def __init__(self, launch: Launch, worker: str, tail: Callable[[int], list[str]] = lambda _: []) -> None:
        self._launch = launch
        self._worker = worker
        self._tail = tail
        self._journal = Journal()
        self._pulse = Pulse()
        self._changed = threading.Condition()
        self._phase = Phase.WARMING
        self._plan: Plan | None = None  # the present one, or the last
        self._next: Plan | None = None  # announced, not begun
        self._broken = 0
        self._retires = False
        self._mesh: Mesh | None = None
        self._trainer: Trainer | None = None
        self._failure: Failure | None = None
        self._thread = threading.Thread(target=self._live, name="trainer", daemon=True)

    def start(self) -> None:
        """Begin to warm up; returns at once."""
        self._thread.start()

    # -- control side --------------------------------------------------------------------------------------------------

    def poll(self, *, version: int, heard: int, seen: int, wait_s: float) -> Status:
        """The status, at once if it changed since `version`, or after `wait_s`.

        `heard` is the last record that the caller has, `seen` the samples of its last point.
        """
        self._journal.wait(version, wait_s)
        version = self._journal.version
        with self._changed:
            return Status(
                phase=self._phase,
                generation=self._plan.generation if self._plan else 0,
                members=self._plan.members if self._plan else (),
                pending=self._next.generation if self._next else 0,
                broken=self._broken,
                samples=self._trainer.replica.samples if self._trainer else -1,
                committed=self._trainer.committed if self._trainer else -1,
                step_s=self._trainer.step_s if self._trainer else 0.0,
                save_s=self._trainer.save_s if self._trainer else 0.0,
                doing=self._pulse.look(self._thread.ident),
                version=version,
                records=tuple(self._journal.records(heard)),
                points=tuple(self._journal.points(seen)),
                failure=self._failure,
            )

    def announce(self, plan: Plan) -> None:
        """Enter this generation, or leave with it, at the next boundary; in place of an earlier one.

        Every call has a thread of its own, so that an earlier announcement may come after a later one.
        """
        with self._changed:
            known = [each.generation for each in (self._plan, self._next) if each]
            if plan.generation <= max([self._broken, *known]):
                return
            self._next = plan
            self._changed.notify_all()
            joining = self._mesh if self._phase is Phase.JOINING else None
        if joining:
            joining.sever()  # the others will not come there

    def sever(self, generation: int) -> None:
        """This generation, and every one before it, is broken: get out of it, and never into it."""
        with self._changed:
            self._broken = max(self._broken, generation)
            if self._next and self._next.generation <= generation:
                self._next = None
            broken = self._mesh if self._mesh and self._mesh.generation <= generation else None
            self._changed.notify_all()
        if broken:
            self._pulse.nudge()
            broken.sever()  # which may take a while, and nobody may wait for it who looks
        self._journal.nudge()

    def retire(self, generation: int | None = None) -> None:
        """Come to an end at the next boundary, with all other members, and leave a checkpoint of it behind.

        Where the generation breaks before, it is the next that does so. One that is in none has nobody to agree with
        about that; it just ends. With `generation` it is meant in that alone: whoever is out of it by now, perhaps the
        last with the state, is told again in the next.
        """
        with self._changed:
            if self._mesh and self._trainer:
                self._trainer.retires |= generation in (None, self._mesh.generation)
            else:
                self._retires |= generation is None or self._plan is None
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether its training thread has ended."""
        return not self._thread.is_alive()

    # -- training side -------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        self._pulse.does(Activity.WARM_UP)
        try:
            trainer = Trainer.of(self._launch, self._journal, Archive.of(self._launch, self._journal), self._pulse)
            with self._changed:
                self._trainer = trainer
            self._become(Phase.READY)
            while begun := self._await_generation(trainer):
                self._train(trainer, *begun)
            self._become(Phase.LEFT)
        except BaseException as error:  # a recipe may also call sys.exit, and the thread would end without a word
            self._fail(error)

    def _await_generation(self, trainer: Trainer) -> tuple[Plan, Mesh] | None:
        """The next generation that this worker is in, taken up: whatever is announced or severed from now on finds it.
        None: it is to leave.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._next is not None or self._retires)
            plan, self._next = self._next, None
            if plan is None or plan.rank_of(self._worker) is None or self._retires:
                return None
            mesh = Mesh(self._rendezvous(plan), gpu=trainer.device.is_gpu)
            self._plan, self._mesh, self._phase = plan, mesh, Phase.JOINING
            return plan, mesh

    def _train(self, trainer: Trainer, plan: Plan, mesh: Mesh) -> None:
        """One generation, to its end."""
        self._pulse.does(Activity.JOIN)
        phase = Phase.READY
        try:
            mesh.join()
            trainer.enter(mesh, plan)
            self._become(Phase.TRAINING, Activity.JOIN)
            if trainer.run(mesh, self._waits):
                phase = Phase.DONE
            self._retires = self._retires or trainer.retired
        except MeshBroken:
            trainer.undo()
            with self._changed:
                if not self._is_superseded(plan):
                    self._broken = max(self._broken, plan.generation)
        finally:
            self._pulse.does(Activity.LEAVE)
            trainer.leave()
            mesh.leave()
            with self._changed:
                self._mesh = None
        self._become(phase)

    def _is_superseded(self, plan: Plan) -> bool:
        """Whether another generation was announced before this one trained: it is not broken, nobody wants it."""
        return self._phase is Phase.JOINING and self._next is not None and self._next.generation > plan.generation

    def _rendezvous(self, plan: Plan) -> Rendezvous:
        rank = plan.rank_of(self._worker)
        assert rank is not None, "a plan that leaves this worker out was never begun"
        return Rendezvous(
            generation=plan.generation, host=plan.host, port=plan.port, rank=rank, world=len(plan.members)
        )

    def _waits(self, samples: int) -> bool:
        """Whether a generation was announced that may begin after so many samples."""
        plan = self._next
        return plan is not None and samples >= plan.not_before

    def _become(self, phase: Phase, activity: Activity = Activity.IDLE) -> None:
        self._pulse.does(activity)
        with self._changed:
            self._phase = phase
        self._journal.nudge()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = failure_of(error, self._tail)
        self._become(Phase.FAILED)
