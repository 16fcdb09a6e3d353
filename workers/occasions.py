"""What is done once in a while, by all members at the same sample: evaluations, checkpoints, the export at the end."""

from __future__ import annotations

import time
from functools import partial

from torch import nn

from api_schemas.wording import scores
from workers.archive import Archive
from workers.group import Group
from workers.journal import Journal, finite
from workers.pulse import Pulse
from workers.recipes import Recipe
from workers.replica import Replica
from workers.status import Activity

Scores = dict[str, float | None]
"""By name; None is not finite."""


class Occasions:
    """Of one worker. What is due stays due until the next vote: where the lead dies over it, a new one does it."""

    def __init__(self, replica: Replica, recipe: Recipe, journal: Journal, archive: Archive, pulse: Pulse) -> None:
        self.due: set[str] = set()  # "evaluate", "checkpoint", "export": at the replica's sample
        self._replica = replica
        self._recipe = recipe
        self._journal = journal
        self._archive = archive
        self._pulse = pulse
        self._led = -1  # the sample at which this worker did what was due

    def fall_due(self, start: int, stop: int, *, done: bool) -> None:
        """What the way from one sample to another makes due; with `done`, what the end does."""
        spec, horizon = self._replica.spec, self._replica.horizon
        for name, every in (("evaluate", spec.evaluation.every), ("checkpoint", spec.checkpoint.every)):
            period = every and max(1, every.samples(epoch_size=horizon.epoch_size, base_batch=spec.batch.base))
            if done or (period and crossed(start, stop, period)):
                self.due.add(name)
        if done:
            self.due.add("export")

    def attend(self, group: Group, *, done: bool) -> None:
        """Do what is due at this sample. Raises MeshBroken, StorageError, and what the recipe raises."""
        if not self.due:
            return
        replica = self._replica
        replica.average_buffers(group, 1 / group.world)
        leads = group.rank == 0 and self._led != replica.samples
        if leads and "evaluate" in self.due:
            self._pulse.does(Activity.EVALUATE)
            target, ema = self._evaluate()
            print(f"sample {replica.samples}: evaluation: {scores(target, ema)}", flush=True)
            self._journal.record("evaluated", samples=replica.samples, target=target, ema=ema)
        if "checkpoint" in self.due:
            self._pulse.does(Activity.CHECKPOINT)
            self._archive.save(replica.state() if leads else None, last=done)
        if leads and "export" in self.due:
            self._pulse.does(Activity.EXPORT)
            self._journal.record(
                "exported", artifacts=self._archive.export(replica.state(), partial(self.pause, group))
            )
        if leads:
            self._led = replica.samples

    def pause(self, group: Group, seconds: float) -> None:
        """Before the storage is tried again. Raises MeshBroken as soon as the group is of no use."""
        self._pulse.does(Activity.CHECKPOINT)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            group.check()
            time.sleep(min(0.1, seconds))

    def _evaluate(self) -> tuple[Scores, Scores | None]:
        """Of the weights, and of their average."""
        ema = self._replica.ema
        return self._scores(self._replica.model), self._scores(ema.module) if ema else None

    def _scores(self, model: nn.Module) -> Scores:
        with self._pulse.of(model):
            return finite(self._recipe.evaluate(model))


def crossed(start: int, stop: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (start, stop]."""
    return stop // every > start // every
