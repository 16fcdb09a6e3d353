"""The training loop of one worker: plain torch over one `Group` at a time; runs alone with a world of one.

A step is a transaction. Until the vote nothing but gradients and BatchNorm's buffers has changed, and `undo` takes that
back; what the vote confirmed every member applies. So a step in flight when a peer dies is done again by the next
generation, with the same samples, and no committed step is ever lost while one worker lives.
"""

from __future__ import annotations

import hashlib
import math
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from api_schemas.dynamics import Size, state_factors, values_at, warnings_at
from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from workers import recipes
from workers.archive import Archive
from workers.changes import Changes
from workers.data import SampleOrder, micro_batches, slices
from workers.device import Device
from workers.feed import Feed
from workers.gradients import GradientReducer
from workers.group import Group
from workers.journal import Journal
from workers.membership import Change, Plan, Transfers, transfers
from workers.occasions import Occasions, crossed
from workers.pulse import Pulse
from workers.replica import Replica
from workers.state import exchange
from workers.status import Activity
from workers.storage import LONGEST_RETRY_S, RETRY_S
from workers.tally import Tally

CURVE_POINTS = 1000
"""Points of each training curve over a whole job, about."""

Waiting = Callable[[int], bool]
"""Whether a new generation waits that may begin after so many samples."""


@dataclass(frozen=True, kw_only=True)
class _Wrapped:
    """The model as a generation trains it."""

    ddp: DistributedDataParallel
    gradients: GradientReducer


class Trainer:
    """What one worker does, generation after generation."""

    def __init__(
        self, spec: JobSpec, recipe: recipes.Recipe, journal: Journal, archive: Archive, pulse: Pulse | None = None
    ) -> None:
        """Everything that can be made before the others are met: joiners do this while the rest trains."""
        self._pulse = pulse or Pulse()
        self.recipe = recipe
        self.device = Device.of(spec)
        data = recipe.train_data()
        seed = spec.seed if spec.data_seed is None else spec.data_seed
        self.order = SampleOrder(len(data), seed)  # type: ignore[arg-type]
        self.replica = Replica(spec, recipe, self.order.size, self.device)
        if not self.device.is_gpu:
            self.replica.prepare()
        self._feed = Feed(data, recipes.augmentation(recipe), self.order, self.device)
        self._journal = journal
        self._archive = archive
        self._occasions = Occasions(self.replica, recipe, journal, archive, self._pulse)
        self._diverged = False  # and said so
        self._tally = Tally()
        self._generation = 0
        self._changes = Changes(journal)
        self._wrapped: _Wrapped | None = None  # by the present generation
        self._settled = False  # it has done a step
        self._step_ended = time.monotonic()
        self.step_s = 0.0  # how long the last step took
        self.committed = -1  # samples that all members are known to have seen; -1: it has no state
        self.retires = False  # set from outside: nobody looks after this worker any more
        self.retired = False  # the generation has ended for that, by one of its members

    @classmethod
    def of(cls, launch: Launch, journal: Journal, archive: Archive, pulse: Pulse | None = None) -> Self:
        """That of a job's worker. Raises what the recipe raises, UnknownRecipe and InvalidRequest."""
        spec = launch.spec
        kind = recipes.load(spec.recipe.name)
        return cls(spec, kind(kind.Config.model_validate(spec.recipe.config), spec.seed), journal, archive, pulse)

    @property
    def save_s(self) -> float:
        """How long the last checkpoint took until it was durable; 0: none yet."""
        return self._archive.save_s

    @property
    def done(self) -> bool:
        """The budget is used up."""
        return self.replica.samples >= self.replica.horizon.total_samples

    # -- a generation --------------------------------------------------------------------------------------------------

    def enter(self, group: Group, plan: Plan) -> None:
        """Make this worker's replica that of a new generation: agreed, handed on, and converted to its size."""
        self._archive.enter(plan.generation)
        gathered = group.all_gather(torch.tensor([self.replica.samples]))
        standings = [int(samples) for samples in gathered.flatten()]
        roles = transfers(standings)
        if roles.fresh and group.rank == 0:
            self._restore_or_begin(plan, group)
        self._hand_on(group, roles)
        self.committed = self.replica.samples if roles.fresh else min(samples for samples in standings if samples >= 0)
        self._resize(group, plan, restored=roles.fresh)
        self._wrap(group)

    def run(self, group: Group, waiting: Waiting) -> bool:
        """Train. True: the budget is used up; False: a new generation waits, or all `retired`. Raises MeshBroken."""
        while True:
            pause_s = time.monotonic() - self._step_ended
            self._changes.tell(leads=group.rank == 0, pause_s=pause_s, horizon=self.replica.horizon)
            self._occasions.attend(group, done=self.done)
            if self.done:
                group.vote(False)  # nobody leaves before the lead has written its last file
                self.committed = self.replica.samples
                return True
            if self.step(group, waiting):
                if self.retired:
                    self.conclude(group)
                return False

    def conclude(self, group: Group) -> None:
        """Leave a checkpoint of this very sample behind, and what else is due: nobody goes on from memory.

        So nobody leaves before it is written, however often that takes. Raises MeshBroken.
        """
        self._occasions.due.add("checkpoint")
        self._occasions.attend(group, done=self.done)
        wait_s = RETRY_S
        while self._lacks_checkpoint(group):
            self._occasions.pause(group, wait_s)
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)
            self._archive.save(self.replica.state() if group.rank == 0 else None, last=False)

    def _lacks_checkpoint(self, group: Group) -> bool:
        """Whether the lead could not write it."""
        self._archive.settle()
        lacks, _ = group.vote(group.rank == 0 and self._archive.saved != self.replica.samples)
        self.committed = self.replica.samples
        return lacks

    def undo(self) -> None:
        """Take back a step that was not confirmed."""
        self.replica.undo()

    def leave(self) -> None:
        """Let go of the generation's group."""
        if self._wrapped is not None:  # whoever holds it yet, as one who looks at a frame: it hears of no gradient
            self._wrapped.ddp._remove_autograd_hooks()  # type: ignore[no-untyped-call]
        self._wrapped = None

    def _restore_or_begin(self, plan: Plan, group: Group) -> None:
        state = self._archive.latest(partial(self._occasions.pause, group))
        if state is None:
            self.replica.begin(self.replica.size_at(group.world, plan.kappa))
        else:
            self.replica.load(state)
        self._occasions.due = {"evaluate", "export"} if self.done else set()
        self._changes.last = self.replica.size

    def _hand_on(self, group: Group, roles: Transfers) -> None:
        """Joiners, and whoever missed the last step, get the replica of those who have it, and what is due."""
        is_source = group.rank in roles.sources
        self.replica.average_buffers(group, 1 / len(roles.sources) if is_source else 0.0)
        state = self.replica.state() if is_source else None
        if state:
            state.meta.update(
                due=sorted(self._occasions.due), tally=self._tally.to_dict(), trained_at=asdict(self._size_before())
            )
        landing = self.replica.landing() if group.rank in roles.receivers else None
        received = exchange(group, roles, state, landing)
        if received:
            self.replica.load(received, adopt=True)
            self._occasions.due = set(received.meta["due"])
            self._tally = Tally(**received.meta["tally"])
            self._changes.last = Size(**received.meta["trained_at"])
            self._journal.rewind(self.replica.samples)

    def _size_before(self) -> Size:
        """What a change of size is told against. A generation that broke before it trained is not told of at all."""
        return self._changes.last or self.replica.size

    def _resize(self, group: Group, plan: Plan, *, restored: bool) -> None:
        self._generation = plan.generation
        new = self.replica.size_at(group.world, plan.kappa)
        self._become(new, cause=plan.cause, reason=plan.reason, decide_s=plan.decide_s, restored=restored)

    def _follow_ceiling(self, since: int) -> None:
        """Let the batch grow, or shrink, where the plan or the noise has moved its ceiling: all members do at once."""
        new = self.replica.outgrown(since)
        if new is not None:
            self._become(new, cause=self.replica.ceiling.cause, reason=self.replica.ceiling.reason)

    def _become(self, new: Size, *, cause: str, reason: str, decide_s: float = 0.0, restored: bool = False) -> None:
        """Convert the replica to another size; it is told with the first step there."""
        replica, old = self.replica, self._size_before()
        before = values_at(replica.spec, old, replica.samples, replica.horizon)
        replica.resize(new)
        change = Change(
            generation=self._generation,
            cause=cause,
            reason=reason,
            decide_s=decide_s,
            samples=replica.samples,
            restored=restored,
            workers=(old.workers, new.workers),
            kappa=(old.kappa, new.kappa),
            batch=(old.batch, new.batch),
            before=before,
            after=replica.values,
            state_factors=state_factors(replica.spec, old, new),
            warnings=warnings_at(replica.spec, new, replica.horizon),
        )
        self._changes.enter(change, new)

    def _wrap(self, group: Group) -> None:
        """DDP over this generation's group; all members hold the same weights already."""
        with group.guard(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the argument's new name is younger than torch 2.6
            ddp = DistributedDataParallel(
                self.replica.model, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        scaling = self.replica.spec.scaling
        gradients = GradientReducer(
            ddp,
            norms=scaling.second_moment != "assume_noise",
            coordinates=self.replica.feeds_second_moment,
            summed=group.reduced,
            every=scaling.sample_every,
            check=group.check,
            on_sent=self._pulse.sent,
        )
        self._settled = False
        self._wrapped = _Wrapped(ddp=ddp, gradients=gradients)

    # -- a step --------------------------------------------------------------------------------------------------------

    def step(self, group: Group, waiting: Waiting) -> bool:
        """One optimizer step by all members; returns whether this generation ends with it. Raises MeshBroken."""
        assert self._wrapped is not None, "a generation is entered before it trains"
        self._pulse.does(Activity.STEP if self._settled else Activity.FIRST_STEP)
        began = time.monotonic()
        gradients, start = self._wrapped.gradients, self.replica.samples
        stop = self._stop(start)
        self.replica.apply_schedules()
        loss = self._accumulate(group, self._wrapped, start, stop)
        leave, sums = group.vote(waiting(stop), loss, gradients.square_norm, float(self.retires))
        self._pulse.beat()
        loss, mean_sqnorm, retiring = sums
        self.retired = retiring > 0
        self._occasions.due.clear()
        self.replica.update(gradients, mean_sqnorm, stop)
        self._step_ended = time.monotonic()
        self.step_s = self._step_ended - began
        self._settled = True
        self.committed = stop if group.world == 1 else start  # all who voted had taken the step before
        self._changes.trains(self.replica.size)
        self._tally.add(stop - start, loss)
        if not math.isfinite(loss) and not self._diverged:
            self._warn_of_divergence(group, stop)
        self._note(start, stop)
        self._follow_ceiling(start)
        return leave or self.retired

    def _accumulate(self, group: Group, wrapped: _Wrapped, start: int, stop: int) -> float:
        """Gradients of this worker's slice of the batch [start, stop), summed over all members.

        A micro-batch of m of the step's B samples counts m/B, so a plain sum over micro-batches and workers is the
        gradient of the batch's mean loss, whatever the slices. Returns this worker's share of that loss.
        """
        batch = stop - start
        parts = self._parts(start, stop, group) or [(start, start)]  # without samples it joins with nothing
        upcoming = [*parts[1:], *self._parts(stop, self._stop(stop), group)[:1], None]
        weights = [(b - a) / batch for a, b in parts]
        wrapped.gradients.begin(weights, shards=_shards(batch, group.world, self.replica.spec.batch.per_worker))
        total = 0.0
        for position, ((a, b), weight) in enumerate(zip(parts, weights, strict=True)):
            last = position == len(parts) - 1
            with group.guard(), nullcontext() if last else wrapped.ddp.no_sync():
                samples = self._feed.batch((a, max(b, a + 1)))
                self._feed.expect(upcoming[position])
                loss = self._loss(wrapped.ddp, samples, a, training=weight > 0) * weight
                group.check()
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            if not last:
                wrapped.gradients.accumulated(position)
                self._pulse.beat()
        with group.guard():
            self.device.settle()
        return total

    def _stop(self, start: int) -> int:
        """Where the step that begins at a sample ends."""
        return min(start + self.replica.size.batch, self.replica.horizon.total_samples)

    def _parts(self, start: int, stop: int, group: Group) -> list[tuple[int, int]]:
        """This worker's micro-batches of the batch [start, stop)."""
        lo, hi = slices(stop - start, group.world)[group.rank]
        return [(start + a, start + b) for a, b in micro_batches(lo, hi, self.replica.spec.batch.per_worker)]

    def _loss(self, ddp: DistributedDataParallel, batch: Any, start: int, *, training: bool) -> Tensor:
        """Mean loss over samples from position `start` on, to which dropout and the like are keyed: they repeat."""
        replica = self.replica
        torch.manual_seed(_seed(replica.spec.seed, start))
        context = recipes.StepContext(
            ema=replica.ema.module if replica.ema else None,
            samples=replica.samples,
            epoch=replica.samples / self.order.size,
            kappa=replica.size.kappa,
            base_steps=replica.size.base_steps(replica.spec),
        )
        replica.model.train(training)
        with self.device.autocast():
            loss = self.recipe.loss(ddp, batch, context)
        return loss.float() if loss.dtype is torch.bfloat16 else loss

    def _warn_of_divergence(self, group: Group, samples: int) -> None:
        self._diverged = True
        if group.rank == 0:
            message = (
                f"The loss is not finite after {samples} samples: the training diverged, or its data are not finite."
            )
            self._journal.record("warning", code="loss_not_finite", message=message)

    # -- once in a while -----------------------------------------------------------------------------------------------

    def _note(self, start: int, stop: int) -> None:
        """What falls due on the way from one sample to another."""
        if self.done or crossed(start, stop, max(1, self.replica.horizon.total_samples // CURVE_POINTS)):
            self._journal.point(stop, self._tally.point(self.replica))
        self._occasions.fall_due(start, stop, done=self.done)


def _shards(batch: int, world: int, per_worker: int) -> int:
    """Micro-batches of a step on all workers together: the shards whose spread measures the noise."""
    return sum(len(micro_batches(lo, hi, per_worker)) for lo, hi in slices(batch, world))


def _seed(*key: int) -> int:
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
