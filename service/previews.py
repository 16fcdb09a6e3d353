"""What the scaling rules make of a spec, a resize or bare values, before anything runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from api_schemas import scaling
from api_schemas.ceiling import READINGS, Ceiling, by_noise, ceiling
from api_schemas.dynamics import Horizon, Size, lr_multiplier, most_workers, state_factors, values_at, warnings_at
from api_schemas.errors import ScalingError
from api_schemas.jobs import JobSpec
from api_schemas.previews import JobPreview, ScalingPreview, ScalingPreviewRequest, ScalingRow, SizePreview
from api_schemas.views import ResizePreview
from api_schemas.wording import counted
from service.tables import Job

MAX_SIZES = 16
SCHEDULED = ("lr", "ema_momentum")
"""Values that change between two resizes."""


def job_preview(spec: JobSpec) -> JobPreview:
    """The spec and the sizes it may have. Raises ScalingError where every one of them is refused."""
    return JobPreview(spec=spec, sizes=possible_sizes(spec), warnings=list(_before_noise(spec)))


def possible_sizes(spec: JobSpec) -> list[SizePreview]:
    """The sizes that a job may have, or some of them. Raises ScalingError where every one is refused."""
    sizes = [_size_preview(spec, workers) for workers in _spread(*spec.elasticity.workers)]
    if all(size.error for size in sizes):
        values_at(spec, Size.of(spec, sizes[0].workers), 0, None)  # raises, with the sentence that belongs to it
    return sizes


def resize_preview(
    job: Job, spec: JobSpec, workers: int | None, at_samples: int | None, slots: int | None
) -> ResizePreview:
    """Every value before and after. Raises ScalingError.

    A job without workers is taken at its smallest size; one that trains is taken to keep its size until that sample.
    `workers` None: as many as it may have and the cluster holds. `slots`: how many of its workers the empty cluster
    holds; None: not known.
    """
    samples, horizon = max(at_samples or 0, job.samples), _horizon(job, spec)
    there = _below_ceiling(job, spec, samples, horizon)
    before, after = _present(job, spec), _sized(job, there, _aim(spec, workers, slots))
    in_force = _in_force(job, spec, before, samples, horizon)
    stays = (before.workers, before.batch, before.kappa) == (after.workers, after.batch, after.kappa)
    values = in_force if stays else values_at(spec, after, samples, horizon)
    return ResizePreview(
        workers=(before.workers, after.workers),
        kappa=(before.kappa, after.kappa),
        batch=(before.batch, after.batch),
        before=in_force,
        after=values,
        state_factors=state_factors(spec, before, after),
        warnings=[
            *warnings_at(spec, after, horizon),
            *(() if stays else _about_noise(job, spec, before, after)),
            *about_room(spec, workers, slots),
        ],
    )


def scaling_preview(request: ScalingPreviewRequest) -> ScalingPreview:
    """A row per kappa; one that is refused says so and does not fail the others."""
    return ScalingPreview(items=[_scaling_row(request, kappa) for kappa in request.kappas])


def _scaling_row(request: ScalingPreviewRequest, kappa: float) -> ScalingRow:
    try:
        values, findings = _scaled(request, kappa)
    except ScalingError as error:
        return ScalingRow(kappa=kappa, values={}, warnings=[], error=error.reason)
    return ScalingRow(kappa=kappa, values=values, warnings=[finding.code for finding in findings])


def _scaled(request: ScalingPreviewRequest, kappa: float) -> tuple[dict[str, Any], list[scaling.Finding]]:
    derived = scaling.derive(
        request.optimizer.name,
        request.optimizer.base(),
        kappa,
        f=1.0 if request.second_moment == "assume_noise" else request.f,
        rule=request.rule,
        second_moment=scaling.PER_WORKER if request.second_moment == "per_worker" else scaling.GIVEN_F,
    )
    values, findings = dict(derived.values), list(derived.findings)
    if request.ema is not None:
        values["ema_momentum"] = scaling.ema_momentum(request.ema, kappa)
        findings += scaling.ema_findings(request.ema, kappa)
    if request.bn_momentum is not None:
        values["bn_momentum"] = scaling.batchnorm_momentum(request.bn_momentum, kappa, 1, 1)
        findings += scaling.batchnorm_findings(request.bn_momentum, kappa)
    return values, findings


def _size_preview(spec: JobSpec, workers: int) -> SizePreview:
    size = Size.of(spec, workers)
    made = {"workers": workers, "batch": size.batch, "kappa": size.kappa}
    try:
        return SizePreview(**made, values=values_at(spec, size, 0, None), warnings=warnings_at(spec, size, None))
    except ScalingError as error:
        return SizePreview(**made, values={}, warnings=[], error=error.reason)


def _spread(low: int, high: int) -> list[int]:
    """All numbers from low to high, or MAX_SIZES of them evenly, both ends included."""
    if high - low < MAX_SIZES:
        return list(range(low, high + 1))
    return [low + round(step * (high - low) / (MAX_SIZES - 1)) for step in range(MAX_SIZES)]


def _aim(spec: JobSpec, workers: int | None, slots: int | None) -> int:
    if workers is not None:
        return workers
    most = most_workers(spec)
    return most if slots is None else max(min(most, slots), spec.elasticity.workers[0])


def about_room(spec: JobSpec, workers: int | None, slots: int | None) -> Iterator[str]:
    """What other jobs, or the cluster, may leave of a size; as in `resize_preview`."""
    if workers is None:
        workers = most_workers(spec)
        yield f"It may have up to {counted(workers, 'worker')} again; other jobs may leave room for fewer."
    if slots is not None and slots < workers:
        room = counted(slots, "worker") if slots else "no worker"
        yield f"The cluster has room for {room} of this job; the others start when nodes join."


def _about_noise(job: Job, spec: JobSpec, before: Size, after: Size) -> Iterator[str]:
    """That is measured on the way: what is shown may not be what will be applied."""
    if spec.scaling.second_moment == "assume_noise" or not _follows_noise(spec, before, after):
        return
    shown = "These values follow the gradient noise as last measured"
    if job.noise_scale is None:
        shown = "The gradient noise was not measured yet"
    yield f"{shown}; the values applied follow what is measured by then."


def _before_noise(spec: JobSpec) -> Iterator[str]:
    smallest, largest = (Size.of(spec, workers) for workers in spec.elasticity.workers)
    if spec.scaling.second_moment != "assume_noise" and any(
        _follows_noise(spec, smallest, size) for size in (smallest, largest)
    ):
        yield "These values hold until the gradient noise is measured; those applied later follow it."


def _follows_noise(spec: JobSpec, before: Size, after: Size) -> bool:
    if spec.elasticity.mode == "auto":  # so does kappa
        return True
    other = replace(after, noise_fraction=0.5 if after.noise_fraction != 0.5 else 0.25, measured=True)
    try:
        shown, others = ((values_at(spec, size, 0, None), state_factors(spec, before, size)) for size in (after, other))
    except ScalingError:  # the size shown is covered
        return True
    return shown != others


def _horizon(job: Job, spec: JobSpec) -> Horizon | None:
    if job.epoch_size is None:
        return None
    return Horizon.of(spec, epoch_size=job.epoch_size, bn_momentum=job.bn_momentum)


def _below_ceiling(job: Job, spec: JobSpec, samples: int, horizon: Horizon | None) -> JobSpec:
    """With the ceiling that kappa has at that sample, as far as the job has told what it depends on.

    Of the noise that is the newest reading; the workers wait until several agree.
    """
    if horizon is None:
        return spec
    readings = [] if job.noise_scale is None else [job.noise_scale] * READINGS
    there = ceiling(spec, horizon, samples, by_noise(spec, readings, Ceiling()))
    elasticity = spec.elasticity.model_copy(update={"kappa": there.over(spec.elasticity.kappa)})
    return spec.model_copy(update={"elasticity": elasticity})


def _in_force(job: Job, spec: JobSpec, size: Size, samples: int, horizon: Horizon | None) -> dict[str, Any]:
    """What the job trains with, and will at a later sample.

    Workers hold the noise fraction of the last resize until the next. It is not told, but what came of it is: a value
    that was derived stays as it is, and lr follows its schedule from where it is.
    """
    if horizon is None or not job.workers:
        return values_at(spec, size, samples, horizon)
    if samples == job.samples:
        return job.values
    there = values_at(spec, size, samples, horizon)
    held = {name: value for name, value in job.values.items() if name not in SCHEDULED}
    if size.measured and (now := lr_multiplier(spec, horizon, job.samples)):
        held["lr"] = job.values["lr"] * lr_multiplier(spec, horizon, samples) / now
    return there | held


def _present(job: Job, spec: JobSpec) -> Size:
    size = _sized(job, spec, job.workers or spec.elasticity.workers[0])
    if not job.workers or job.batch is None or job.kappa is None:
        return size
    return Size(
        workers=job.workers,
        batch=job.batch,
        kappa=job.kappa,
        noise_fraction=size.noise_fraction,
        measured=size.measured,
    )


def _sized(job: Job, spec: JobSpec, workers: int) -> Size:
    """With the noise fraction that the trainer will use: the newest measured one, where there is one."""
    if job.noise_scale is None or spec.scaling.second_moment == "assume_noise":
        return Size.of(spec, workers)
    fraction = 1.0 if math.isinf(job.noise_scale) else job.noise_scale / (job.noise_scale + spec.batch.base)
    return Size.of(spec, workers, noise_fraction=fraction, measured=True)
