"""One worker's copy of the model, its optimizer and EMA, the sample cursor, and the size that they are valid for.

All members of a generation hold the same replica, BatchNorm's running statistics between two averagings apart.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from api_schemas.dynamics import (
    Horizon,
    Size,
    base_ema_momentum,
    is_centered,
    lr_multiplier,
    optimizer_values,
    state_factors,
    values_at,
)
from api_schemas.jobs import JobSpec
from workers import optim
from workers.batchnorm import BatchNorms, BufferSnapshot, average_buffers
from workers.ema import Ema
from workers.gradients import GradientReducer, NoiseEstimate, feed_second_moment
from workers.mesh import Mesh
from workers.recipes import Recipe
from workers.state import State


class Replica:
    """Model, optimizer, EMA and cursor. `samples` is -1 until there is a state: begun, loaded or received."""

    def __init__(self, spec: JobSpec, recipe: Recipe, epoch_size: int) -> None:
        self.spec = spec
        self.model = recipe.model().train()
        self.batchnorms = BatchNorms(self.model)
        self.horizon = Horizon.of(spec, epoch_size=epoch_size, bn_momentum=self.batchnorms.base_momentum)
        self.ema = Ema(self.model, interpolate=spec.ema.interpolate) if spec.ema else None
        self.noise = NoiseEstimate()
        self.samples = -1
        self.size = Size.of(spec, spec.elasticity.workers[0])
        self.optimizer = self._new_optimizer()
        self.values: dict[str, Any] = {}  # in force since the last resize; lr is the schedule's at that sample
        self._peak: dict[str, Any] = {}  # the optimizer's own, lr at the schedule's peak
        self._buffers = BufferSnapshot(self.model)

    # -- size ----------------------------------------------------------------------------------------------------------

    def size_at(self, workers: int, kappa_limits: tuple[float, float]) -> Size:
        """The size that so many workers make, with the newest noise fraction, which is held until the next resize."""
        elasticity = self.spec.elasticity.model_copy(update={"kappa": kappa_limits})
        self.spec = self.spec.model_copy(update={"elasticity": elasticity})
        f = None if self.spec.scaling.second_moment == "assume_noise" else self.noise.fraction
        return Size.of(self.spec, workers, noise_fraction=1.0 if f is None else f, measured=f is not None)

    def begin(self, size: Size) -> None:
        """Start from the recipe's initial weights, at this size."""
        self.samples = 0
        self.size = size
        self.optimizer = self._new_optimizer()

    def resize(self, new: Size) -> dict[str, float]:
        """Convert state and hyperparameters to another size; returns the state's factors. Raises ScalingError."""
        old = self.size
        factors = state_factors(self.spec, old, new)
        peak = optimizer_values(self.spec, new).values
        optim.convert(self.optimizer, factors, centered=(old.kappa, new.kappa) if is_centered(self.spec) else None)
        self.batchnorms.rescale_counters(old.kappa, new.kappa)
        self.batchnorms.scale(new.kappa, new.forwards(self.spec))
        self.keep_buffers()
        self.size, self._peak = new, peak
        self.values = values_at(self.spec, new, self.samples, self.horizon)
        return factors

    # -- a step --------------------------------------------------------------------------------------------------------

    def apply_schedules(self) -> None:
        """Hyperparameters at this sample: the schedule's factor on what was derived for this size."""
        optim.apply(self.optimizer, self._peak, lr_multiplier(self.spec, self.horizon, self.samples))

    def update(self, reducer: GradientReducer, stop: int) -> None:
        """Apply a confirmed gradient: clip, step, average. Every member computes the same."""
        reducer.measure(self.noise, batch=stop - self.samples, base_batch=self.spec.batch.base)
        if "clip_norm" in self.values:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.values["clip_norm"])
        if self.spec.scaling.second_moment == "per_worker":
            feed_second_moment(self.optimizer, reducer, self.size.kappa, self.size.noise_fraction)
        if self.ema:
            self.ema.before_step(self.model)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        rho = base_ema_momentum(self.spec, self.horizon, self.samples)
        if self.ema and rho is not None:
            self.ema.update(self.model, rho, self.size.kappa)
        self._buffers.take()
        self.samples = stop

    def undo(self) -> None:
        """Take back a step that was not confirmed."""
        self.optimizer.zero_grad(set_to_none=True)
        self._buffers.restore()

    # -- buffers -------------------------------------------------------------------------------------------------------

    def average_buffers(self, mesh: Mesh, weight: float) -> None:
        """One set of running statistics for all members; `weight` is this one's share. Raises MeshBroken."""
        average_buffers(self.model, weight, mesh.all_reduce)
        self.keep_buffers()

    def keep_buffers(self) -> None:
        """The model's buffers are right as they are: what `undo` goes back to, and what the EMA evaluates with."""
        self._buffers.take()
        if self.ema:
            self.ema.copy_buffers(self.model)

    # -- state ---------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """All that another worker, or a later run at any size, needs: live tensors, not copies."""
        groups = {"model": dict(self.model.state_dict()), "optimizer": optim.state_tensors(self.optimizer)}
        if self.ema:
            groups["ema"] = dict(self.ema.module.state_dict())
        return State(groups, {"samples": self.samples, "size": asdict(self.size), "noise": self.noise.to_dict()})

    def load(self, state: State) -> None:
        """Take over what `state` returned elsewhere."""
        self.model.load_state_dict(state.groups["model"])
        if self.ema:
            self.ema.module.load_state_dict(state.groups["ema"])
        self.size = Size(**state.meta["size"])
        self.optimizer = self._new_optimizer()
        optim.load_state_tensors(self.optimizer, state.groups["optimizer"])
        self.noise = NoiseEstimate.from_dict(state.meta["noise"])
        self.samples = state.meta["samples"]
        self.keep_buffers()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        values = optimizer_values(self.spec, self.size).values
        return optim.build(self.spec.optimizer.name, self.model.parameters(), values)
