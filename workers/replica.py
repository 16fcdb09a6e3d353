"""One worker's copy of the model, its optimizer and EMA, the sample cursor, and the size that they are valid for.

All members of a generation hold the same replica, BatchNorm's running statistics between two averagings apart.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from api_schemas import scaling
from api_schemas.ceiling import READINGS, REVISIONS, Ceiling, by_noise, ceiling
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
from workers.device import Device
from workers.ema import Ema
from workers.gradients import GradientReducer, square_sum
from workers.group import Group
from workers.noise import NoiseEstimate
from workers.recipes import Recipe
from workers.state import Groups, State


class Replica:
    """Model, optimizer, EMA and cursor. `samples` is -1 until there is a state: begun, loaded or received."""

    def __init__(self, spec: JobSpec, recipe: Recipe, epoch_size: int, device: Device) -> None:
        self.spec = spec
        self.model = recipe.model().train().to(device.torch)
        self.batchnorms = BatchNorms(self.model)
        self.horizon = Horizon.of(spec, epoch_size=epoch_size, bn_momentum=self.batchnorms.base_momentum)
        self.ema = Ema(self.model, order=spec.ema.order, interpolate=spec.ema.interpolate) if spec.ema else None
        self.noise = NoiseEstimate()
        self.samples = -1
        self.ceiling = Ceiling()  # of kappa, in force
        self._noise_ceiling = Ceiling()
        self._readings: list[float] = []  # of B_noise, the newest
        self._limits = spec.elasticity.kappa
        self.size = Size.of(spec, spec.elasticity.workers[0])
        self.optimizer = self._new_optimizer()
        self.values: dict[str, Any] = {}  # in force since the last resize; lr is the schedule's at that sample
        self._peak: dict[str, Any] = {}  # the optimizer's own, lr at the schedule's peak
        self._buffers = BufferSnapshot(self.model)
        self._new_model = recipe.model
        self._blank: dict[str, Tensor] = {}  # for optimizer state that is received
        self._spoiled = False  # model and EMA are not as they were made, nor whose they were meant to be

    @property
    def feeds_second_moment(self) -> bool:
        """Whether Adam's v gets second moments of the base batch."""
        per_worker = self.spec.scaling.second_moment == "per_worker" and self.spec.scaling.rule == scaling.MATCHED
        return per_worker and scaling.RULES[self.spec.optimizer.name].per_worker

    # -- size ----------------------------------------------------------------------------------------------------------

    def size_at(self, workers: int, kappa_limits: tuple[float, float]) -> Size:
        """The size that so many workers make, with the newest noise fraction, which is held until the next resize.

        Of kappa count these limits, and the ceiling.
        """
        self._limits = kappa_limits
        self._revise()
        elasticity = self.spec.elasticity.model_copy(update={"kappa": self.ceiling.over(kappa_limits)})
        self.spec = self.spec.model_copy(update={"elasticity": elasticity})
        noise = None if self.spec.scaling.second_moment == "assume_noise" else self.noise.scale(self.spec.batch.base)
        if noise is None:
            return Size.of(self.spec, workers)
        return Size.of(self.spec, workers, noise_fraction=noise.noise_fraction, measured=True)

    def outgrown(self, since: int) -> Size | None:
        """The size that the ceiling of kappa allows now, where it has moved since that sample and it is another one.
        None after the last step: no other has that size.
        """
        before, every = self.ceiling.kappa, max(1, self.horizon.total_samples // REVISIONS)
        if since // every < self.samples // every:
            self._read_noise()
        self._revise()
        if self.ceiling.kappa == before or self.samples >= self.horizon.total_samples:
            return None
        size = self.size_at(self.size.workers, self._limits)
        return size if size.batch != self.size.batch else None

    def _read_noise(self) -> None:
        measured = self.noise.scale(self.spec.batch.base)
        if measured and self.noise.settled:
            self._readings = [*self._readings, measured.noise_batch][-READINGS:]

    def _revise(self) -> None:
        """The ceiling, by the samples seen and what was read of the noise."""
        self._noise_ceiling = by_noise(self.spec, self._readings, self._noise_ceiling)
        self.ceiling = ceiling(self.spec, self.horizon, max(0, self.samples), self._noise_ceiling)

    def begin(self, size: Size) -> None:
        """Start from the recipe's initial weights, at this size."""
        if self._spoiled:
            self._renew()
        self._blank = {}
        self.samples = 0
        self.size = size
        self.optimizer = self._new_optimizer()

    def resize(self, new: Size) -> None:
        """Convert state and hyperparameters to another size. Raises ScalingError."""
        old = self.size
        factors = state_factors(self.spec, old, new)
        peak = optimizer_values(self.spec, new).values
        optim.convert(self.optimizer, factors, centered=(old.kappa, new.kappa) if is_centered(self.spec) else None)
        self.batchnorms.rescale_counters(old.kappa_of(self.spec, "state"), new.kappa_of(self.spec, "state"))
        self.batchnorms.scale(*new.batchnorm_steps(self.spec))
        self.keep_buffers()
        self.size, self._peak = new, peak
        self.values = values_at(self.spec, new, self.samples, self.horizon)

    # -- a step --------------------------------------------------------------------------------------------------------

    def apply_schedules(self) -> None:
        """Hyperparameters at this sample: the schedule's factor on what was derived for this size."""
        optim.apply(self.optimizer, self._peak, lr_multiplier(self.spec, self.horizon, self.samples))

    def update(self, gradients: GradientReducer, mean_sqnorm: float, stop: int) -> None:
        """Apply a confirmed gradient: measure, clip, step, average. Every member computes the same.

        `mean_sqnorm` is sum w |g|^2 over all shards where this step measured it.
        """
        norm = math.sqrt(self._square_norm()) if gradients.measuring or "clip_norm" in self.values else 0.0
        if gradients.measuring:
            gradients.settle()
            batch, base = stop - self.samples, self.spec.batch.base
            self.noise.add(mean_sqnorm, norm**2, shards=gradients.shards, batch=batch, base_batch=base)
        kept = self._clip(norm)
        if self.feeds_second_moment:
            self._feed(gradients, kept)
        if self.ema:
            self.ema.before_step(self.model, *self._ema_momentum())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.after_step(self.model, *self._ema_momentum())
        self._buffers.take()
        self.samples = stop

    def _ema_momentum(self) -> tuple[float, float]:
        """rho at the base batch, and the kappa that it follows."""
        rho = base_ema_momentum(self.spec, self.horizon, self.samples)
        assert rho is not None, "the job has an EMA"
        return rho, self.size.kappa_of(self.spec, "ema")

    def _square_norm(self) -> float:
        return square_sum([p.grad for p in self.model.parameters() if p.grad is not None])

    def _clip(self, norm: float) -> float:
        """Clip the gradients, whose norm is given; returns by what they were multiplied."""
        limit = self.values.get("clip_norm")
        if limit is None or norm <= limit:
            return 1.0
        kept = float(limit) / norm
        torch._foreach_mul_([p.grad for p in self.model.parameters() if p.grad is not None], kept)
        return kept

    def _feed(self, gradients: GradientReducer, kept: float) -> None:
        """The spread of the last measurement, clipped as the gradients are; without one, the noise fraction."""
        shards = gradients.shards if gradients.spread else 1
        weights = scaling.second_moment_weights(shards, self.size.kappa, self.size.noise_fraction)
        clipped = weights._replace(spread=weights.spread * kept**2)
        optim.feed_second_moment(self.optimizer, gradients.spread, clipped)

    def undo(self) -> None:
        """Take back a step that was not confirmed."""
        self.optimizer.zero_grad(set_to_none=True)
        self._buffers.restore()

    # -- buffers -------------------------------------------------------------------------------------------------------

    def average_buffers(self, group: Group, weight: float) -> None:
        """One set of running statistics for all members; `weight` is this one's share. Raises MeshBroken."""
        average_buffers(self.model, weight, group.all_reduce)
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
        meta = {"samples": self.samples, "size": asdict(self.size), "noise": self.noise.to_dict()}
        if self._noise_ceiling.cause:
            meta["noise_ceiling"] = asdict(self._noise_ceiling)
            meta["noise_readings"] = [None if math.isinf(each) else each for each in self._readings]  # JSON has none
        return State(groups, meta)

    def prepare(self) -> None:
        """Have memory ready for `landing`; until then this replica has as much as others that train."""
        if self.samples < 0:
            values = optimizer_values(self.spec, self.size).values
            self._blank = optim.blank_state(self.spec.optimizer.name, self.model.parameters(), values)

    def landing(self) -> Groups | None:
        """Where another's state may be received, for `load` to adopt; None: what is here may be needed yet."""
        if self.samples >= 0:
            return None
        self._spoiled = True
        return {**self.state().groups, "optimizer": self._blank}

    def _renew(self) -> None:
        """Model and EMA as they were made."""
        initial = self._new_model().state_dict()
        for module in (self.model, *((self.ema.module,) if self.ema else ())):
            module.load_state_dict(initial)
        self.keep_buffers()
        self._spoiled = False

    def load(self, state: State, *, adopt: bool = False) -> None:
        """Take over what `state` returned elsewhere; with `adopt` it is this replica's from now on."""
        self.model.load_state_dict(state.groups["model"])
        if self.ema:
            self.ema.module.load_state_dict(state.groups["ema"])
        self.size = Size(**state.meta["size"])
        self.optimizer = self._new_optimizer()
        optim.load_state_tensors(self.optimizer, state.groups["optimizer"], adopt=adopt)
        self.noise = NoiseEstimate(**state.meta["noise"])
        self._noise_ceiling = Ceiling(**state.meta.get("noise_ceiling", {}))
        self._readings = [math.inf if each is None else each for each in state.meta.get("noise_readings", [])]
        self.samples = state.meta["samples"]
        self._blank, self._spoiled = {}, False
        self.keep_buffers()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        values = optimizer_values(self.spec, self.size).values
        return optim.build(self.spec.optimizer.name, self.model.parameters(), values)
