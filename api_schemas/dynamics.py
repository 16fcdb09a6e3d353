"""Every hyperparameter of a job at a size and a sample: the one function behind trainer and preview."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from api_schemas import scaling
from api_schemas.errors import ScalingError
from api_schemas.jobs import JobSpec, ScaledPart, global_batch


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """What is known once the data set was read."""

    epoch_size: int  # samples
    total_samples: int  # the schedule's budget
    warmup_samples: int
    bn_momentum: float | None = None  # torch's `momentum` at the base batch; None: no BatchNorm

    @classmethod
    def of(cls, spec: JobSpec, *, epoch_size: int, bn_momentum: float | None = None) -> Horizon:
        """The spec's lengths in samples, for a data set of `epoch_size` samples."""
        lengths = {"epoch_size": epoch_size, "base_batch": spec.batch.base}
        return cls(
            epoch_size=epoch_size,
            total_samples=max(1, spec.schedule.budget.samples(**lengths)),
            warmup_samples=spec.schedule.warmup.samples(**lengths),
            bn_momentum=bn_momentum,
        )


@dataclass(frozen=True, kw_only=True)
class Size:
    """How big the job is, and the noise fraction that is in force since it is."""

    workers: int
    batch: int  # samples per optimizer step
    kappa: float
    noise_fraction: float = 1.0  # f
    measured: bool = False  # whether f was measured

    @classmethod
    def of(cls, spec: JobSpec, workers: int, *, noise_fraction: float = 1.0, measured: bool = False) -> Size:
        """The size that so many workers make."""
        batch = global_batch(spec, workers)
        kappa = batch / spec.batch.base
        return cls(workers=workers, batch=batch, kappa=kappa, noise_fraction=noise_fraction, measured=measured)

    def forwards(self, spec: JobSpec) -> int:
        """Micro-batches per optimizer step on the busiest worker."""
        return math.ceil(math.ceil(self.batch / self.workers) / spec.batch.per_worker)

    def kappa_of(self, spec: JobSpec, part: ScaledPart) -> float:
        """The kappa that this part follows: 1 where the job keeps it as it was tuned."""
        return 1.0 if part in spec.scaling.keep else self.kappa

    def batchnorm_steps(self, spec: JobSpec) -> tuple[float, int]:
        """kappa and the forward passes of a step, as BatchNorm's momentum follows them."""
        return (1.0, 1) if "batchnorm" in spec.scaling.keep else (self.kappa, self.forwards(spec))

    def base_steps(self, spec: JobSpec) -> float:
        """How many base steps one forward pass stands for, in the averages that a recipe keeps."""
        return 1.0 if "ema" in spec.scaling.keep else self.kappa / self.forwards(spec)


def optimizer_values(spec: JobSpec, size: Size) -> scaling.Derived:
    """The optimizer's hyperparameters at this size; lr is the peak of the schedule. Raises ScalingError."""
    derived = _derived(spec, size, size.kappa)
    if not spec.scaling.keep & {"lr", "optimizer"}:
        return derived
    base = _derived(spec, size, 1.0).values
    kept = {"lr"} & base.keys() if "lr" in spec.scaling.keep else set()
    kept |= base.keys() - {"lr"} if "optimizer" in spec.scaling.keep else set()
    return replace(derived, values={**derived.values, **{name: base[name] for name in kept}})


def _derived(spec: JobSpec, size: Size, kappa: float) -> scaling.Derived:
    return scaling.derive(
        spec.optimizer.name,
        spec.optimizer.base(),
        kappa,
        f=size.noise_fraction,
        rule=spec.scaling.rule,
        second_moment=_mode(spec),
    )


def most_workers(spec: JobSpec) -> int:
    """The most workers of the spec's elasticity whose size the scaling rules cover; its fewest where they cover none.

    What a rule refuses at some kappa it refuses at every larger one.
    """
    low, high = spec.elasticity.workers
    if _covers(spec, high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _covers(spec, middle) else (low, middle)
    return low


def _covers(spec: JobSpec, workers: int) -> bool:
    try:
        optimizer_values(spec, Size.of(spec, workers))
    except ScalingError:
        return False
    return True


def is_centered(spec: JobSpec) -> bool:
    """Whether part of the optimizer's state has no scalar factor (`scaling.centered_square_avg` converts it)."""
    row = scaling.RULES[spec.optimizer.name]
    converts = spec.scaling.rule == scaling.MATCHED and "state" not in spec.scaling.keep
    return converts and not row.has_factors(spec.optimizer.base())


def state_factors(spec: JobSpec, before: Size, after: Size) -> dict[str, float]:
    """By what each tensor of the optimizer's state is multiplied. One f, the newest, on both sides.

    Centered RMSProp's `square_avg` is left out; the rest of its state converts as without centering at f = 1, where
    V = 1/kappa. Raises ScalingError.
    """
    base = spec.optimizer.base()
    centered = is_centered(spec)
    factors = scaling.switch(
        spec.optimizer.name,
        {**base, "centered": False} if centered else base,
        before.kappa,
        after.kappa,
        f=1.0 if centered else after.noise_fraction,
        rule=spec.scaling.rule,
        second_moment=_mode(spec),
    )
    if "state" in spec.scaling.keep:
        return dict.fromkeys(factors, 1.0)
    return {name: factor for name, factor in factors.items() if not (centered and name == "square_avg")}


def lr_multiplier(spec: JobSpec, horizon: Horizon, samples: int) -> float:
    """The schedule's factor on the peak lr after so many samples; kappa's factor comes on top."""
    if spec.schedule.lr == "cosine":
        return scaling.lr_multiplier(samples, horizon.warmup_samples, horizon.total_samples)
    return min(1.0, samples / horizon.warmup_samples) if horizon.warmup_samples else 1.0


def base_ema_momentum(spec: JobSpec, horizon: Horizon | None, samples: int) -> float | None:
    """rho at the base batch after so many samples; None where the job has no EMA.

    Without a horizon the schedule's first value; a half-life in epochs then counts as unknown (None).
    """
    if spec.ema is None:
        return None
    rho = spec.ema.momentum
    if rho is None:
        assert spec.ema.half_life is not None
        if horizon is None and spec.ema.half_life.unit == "epochs":
            return None
        epoch_size = horizon.epoch_size if horizon else 1
        half_life = spec.ema.half_life.samples(epoch_size=epoch_size, base_batch=spec.batch.base)
        rho = scaling.momentum_from_half_life(half_life, spec.batch.base)
    if spec.ema.schedule == "cosine" and horizon is not None:
        rho = scaling.ema_cosine(rho, samples, horizon.total_samples)
    return scaling.ema_warmup(rho, samples, spec.batch.base) if spec.ema.warmup else rho


def values_at(spec: JobSpec, size: Size, samples: int, horizon: Horizon | None) -> dict[str, Any]:
    """Everything in force at this size after `samples` samples, JSON-ready.

    The names that `scaling.derive` returns, with lr at this point of the schedule (its peak while
    the horizon is unknown), and ema_momentum, bn_momentum and clip_norm where the job has them.
    Raises ScalingError where no rule covers the size.
    """
    derived = optimizer_values(spec, size).values
    values: dict[str, Any] = {name: list(v) if isinstance(v, tuple) else v for name, v in derived.items()}
    if horizon is not None:
        values["lr"] *= lr_multiplier(spec, horizon, samples)
    rho = base_ema_momentum(spec, horizon, samples)
    if rho is not None:
        values["ema_momentum"] = scaling.ema_momentum(rho, size.kappa_of(spec, "ema"))
    if horizon is not None and horizon.bn_momentum is not None:
        values["bn_momentum"] = scaling.batchnorm_momentum(horizon.bn_momentum, *size.batchnorm_steps(spec))
    if spec.clip is not None:
        kappa = size.kappa_of(spec, "optimizer")
        values["clip_norm"] = scaling.clip_norm(spec.clip.norm, kappa, size.noise_fraction, size.measured)
    return values


def warnings_at(spec: JobSpec, size: Size, horizon: Horizon | None) -> list[str]:
    """Codes of the warnings and notes that hold at this size, in the order of the rules."""
    findings = list(optimizer_values(spec, size).findings)
    rho = base_ema_momentum(spec, horizon, 0)
    if rho is not None:
        findings += scaling.ema_findings(rho, size.kappa)
    if horizon is not None and horizon.bn_momentum is not None:
        findings += scaling.batchnorm_findings(horizon.bn_momentum, size.kappa)
    return [finding.code for finding in findings]


def _mode(spec: JobSpec) -> str:
    return "per_worker" if spec.scaling.second_moment == "per_worker" else "given_f"
