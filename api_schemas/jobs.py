"""What a user asks for: `JobSpec` and its parts, and the batch that a number of workers makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from api_schemas.durations import Duration, PositiveDuration, Seconds
from api_schemas.optimizers import OptimizerSpec
from api_schemas.scaling import RULES


def _matches(pattern: str, otherwise: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(otherwise)
        return text

    return check


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


def _no_flag(value: Any) -> Any:
    """For Python `False` is 0."""
    if isinstance(value, bool):
        raise ValueError("must be 0 or 1")
    return value


def _each_once(value: Any) -> Any:
    """A set would take an element twice, and its schema does not."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return value
    if len(set(value)) < len(value):
        raise ValueError("must hold each part once")
    return frozenset(value)


def _no_nul(part: Any) -> Any:
    """No database and no path can hold a NUL; a line break may be meant."""
    texts = [part] if isinstance(part, str) else []
    for inner in [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else []:
        _no_nul(inner)
    if any("\0" in text for text in texts):
        raise ValueError("must not hold the character NUL")
    return part


_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._/-]*"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"

Name = Annotated[
    str,
    Field(min_length=1, max_length=100, json_schema_extra={"pattern": f"^{_NAME}$"}),
    AfterValidator(_matches(_NAME, "must begin with a letter or a digit, and go on with these, spaces and . _ / -")),
]
Label = Annotated[
    str,
    Field(max_length=63, json_schema_extra={"pattern": f"^{_LABEL}$"}),
    AfterValidator(_matches(_LABEL, "must begin and end with a letter or a digit; between them also . _ / -")),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


ModuleUrl = Annotated[
    str,
    Field(max_length=2000),
    AfterValidator(_printable),
    AfterValidator(
        _matches(r"[a-z][a-z0-9]*://[^\s]+\.(zip|whl)", "must be the URL of a .zip or .whl file, as s3://bucket/a.zip")
    ),
]


RecipeName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class RecipeSpec(_Part):
    """Which training task, and its own settings."""

    name: RecipeName = Field(description="A name of the catalogue, or `package.module:Class` importable on the nodes.")
    config: Annotated[dict[str, Any], AfterValidator(_no_nul)] = Field(
        {}, description="The recipe's own settings; its schema is in GET /v1/recipes."
    )
    py_modules: tuple[ModuleUrl, ...] = Field(
        (),
        max_length=20,
        description="Packages for the workers' path: URLs of zip files or wheels that every node can read, such as "
        "s3://bucket/package.zip or file:///shared/package.zip. A zip holds one folder, in which the packages lie, as "
        "one of a repository on GitHub does.",
    )


class ScheduleSpec(_Part):
    """How long to train, and the learning rate on the way: a function of samples seen."""

    budget: PositiveDuration = Field(
        description="The whole training, such as 50 epochs, 100000 samples, 9000 base_steps."
    )
    warmup: Duration = Field("0 samples", validate_default=True, description="Linear warm-up from 0.")
    lr: Literal["constant", "cosine"] = Field("constant", description="After the warm-up.")


class ClipSpec(_Part):
    """Clip the gradient by its global norm."""

    norm: float = Field(gt=0, allow_inf_nan=False, description="Threshold at the base batch.")


class EmaSpec(_Part):
    """The exponential moving average of the weights."""

    momentum: float | None = Field(
        None, ge=0, le=1, description="At the base batch, one update a base step: rho in the paper of the EMA rule."
    )
    half_life: PositiveDuration | None = Field(None, description="Instead of the momentum.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: from the momentum to 1 over the budget."
    )
    warmup: bool = Field(False, description="At most (1 + t) / (10 + t) after t base steps, so that it starts short.")
    order: Literal["after", "before"] = Field(
        "after", description="Average the weights after each optimizer step, as torch does, or before it, as papers do."
    )
    interpolate: bool = Field(False, description="Second-order correction of the update's position within a big step.")

    @model_validator(mode="after")
    def _one_of(self) -> EmaSpec:
        if (self.momentum is None) == (self.half_life is None):
            raise ValueError("give either momentum or half_life, one of the two")
        if self.interpolate and self.order == "before":
            raise ValueError("interpolate averages the weights before and after a step: leave order at 'after'")
        return self


class BatchSpec(_Part):
    """Batch sizes in samples."""

    base: int = Field(ge=1, le=10_000_000, description="B0: samples per optimizer step that the values are tuned for.")
    per_worker: int = Field(ge=1, le=10_000_000, description="The largest micro-batch that fits a worker.")


ScaledPart = Literal["lr", "optimizer", "state", "ema", "batchnorm"]


class ScalingSpec(_Part):
    """How hyperparameters follow the batch."""

    rule: Literal["matched", "published"] = Field(
        "matched",
        description="matched: training follows that at the base batch at the same sample. published: the scaling rules "
        "as papers have them, for comparisons.",
    )
    second_moment: Literal["assume_noise", "measured", "per_worker"] | None = Field(
        None,
        description="How Adam-like rules treat gradient noise. assume_noise: the gradient is noise alone. measured: "
        "its share is measured, and held from one resize to the next. per_worker: Adam and AdamW see the second "
        "moment of the base batch; where a step has a single micro-batch, also because PATCH lowered the fewest "
        "workers, the share in force takes its place. null: chosen at submit, per_worker where even the smallest size "
        "has two micro-batches a step. An optimizer that has no per_worker gets measured.",
    )
    sample_every: int = Field(1, ge=1, le=1000, description="Measure the gradient's spread every so many steps.")
    keep: Annotated[frozenset[ScaledPart], BeforeValidator(_each_once)] = Field(
        frozenset(),
        description="For comparisons: what stays as it was tuned, whatever the batch. lr: the learning rate; "
        "optimizer: its other hyperparameters, and clipping; state: the optimizer's state at a resize; ema: the EMA's "
        "momentum; batchnorm: BatchNorm's.",
    )

    @field_serializer("keep")
    def _in_order(self, keep: frozenset[str]) -> list[str]:
        return sorted(keep)


class ProgressiveStage(_Part):
    """The largest kappa up to some point of the training."""

    until: Duration = Field(description="Where the stage ends, from the start of the training.")
    kappa_max: float = Field(gt=0, le=1e4, description="Largest batch multiplier until then.")


class ElasticitySpec(_Part):
    """How far the job may grow and shrink, and what a resize changes."""

    workers: tuple[Annotated[int, Field(ge=1, le=10_000)], Annotated[int, Field(ge=1, le=10_000)]] = Field(
        (1, 1), description="Fewest and most workers."
    )
    kappa: tuple[Annotated[float, Field(gt=0, le=1e4)], Annotated[float, Field(gt=0, le=1e4)]] = Field(
        (1e-3, 1e4), description="Smallest and largest batch multiplier."
    )
    mode: Literal["scale", "hold", "auto"] = Field(
        "scale",
        description="scale: the batch follows the workers; hold: the batch stays at the base; auto: it follows the "
        "workers up to the measured noise scale, beyond which a larger batch hardly saves a step. That takes two "
        "micro-batches a step; until a tenth of the training has measured it, kappa is 1 at most.",
    )
    noise_margin: float = Field(1, gt=0, le=1000, description="auto: how many times the noise scale the batch may be.")
    progressive: tuple[ProgressiveStage, ...] = Field(
        (), max_length=100, description="Largest kappa by epoch or sample; after the last stage `kappa` alone counts."
    )

    @field_validator("workers", "kappa")
    @classmethod
    def _ordered(cls, limits: tuple[float, float]) -> tuple[float, float]:
        low, high = limits
        if low > high:
            raise ValueError(f"the minimum ({low:g}) must not exceed the maximum ({high:g})")
        return limits

    @model_validator(mode="after")
    def _has_possible_stages(self) -> ElasticitySpec:
        if low := next((stage.kappa_max for stage in self.progressive if stage.kappa_max < self.kappa[0]), None):
            raise ValueError(f"kappa_max {low:g} of a stage is below the smallest kappa ({self.kappa[0]:g})")
        if self.progressive and self.mode == "hold":
            raise ValueError(
                "in the mode hold the batch stays at the base: leave progressive out, or take scale or auto"
            )
        return self


class ResourcesSpec(_Part):
    """What one worker occupies."""

    cpu: float = Field(1, gt=0, le=1024, description="CPUs, also parts of one.")
    gpu: Annotated[Literal[0, 1], BeforeValidator(_no_flag)] = Field(
        0, description="1: each worker has a GPU of its own, and trains on it."
    )


class CheckpointSpec(_Part):
    """Durable checkpoints on the way; the end always leaves one."""

    every: PositiveDuration | None = Field(None, description="null: at the end alone.")
    keep: int = Field(3, ge=1, le=1000, description="How many to retain.")


class EvaluationSpec(_Part):
    """Evaluations on the way, of the target weights and of the EMA; the end always has one."""

    every: PositiveDuration | None = Field(None, description="null: at the end alone.")


class JobSpec(_Part):
    """A training job. Values are those tuned at the base batch; the service derives the rest."""

    name: Name = Field(description="What it is called; several jobs may have the same.")
    recipe: RecipeSpec
    optimizer: OptimizerSpec = Field(description="Which optimizer, and its hyperparameters at the base batch.")
    schedule: ScheduleSpec
    clip: ClipSpec | None = Field(None, description="null: no clipping.")
    ema: EmaSpec | None = Field(None, description="null: no average.")
    batch: BatchSpec
    scaling: ScalingSpec = Field(default_factory=ScalingSpec)
    elasticity: ElasticitySpec = Field(default_factory=ElasticitySpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: the forward pass under autocast; weights, optimizer state and EMA stay in fp32."
    )
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    priority: int = Field(0, ge=-1000, le=1000, description="Higher goes first.")
    engine: Literal["in_place", "ray_train"] = Field(
        "in_place",
        description="in_place: workers live on, and a resize costs fractions of a second. ray_train: Ray Train runs "
        "the same training, and restarts all workers from a checkpoint at every change.",
    )
    stall_timeout: Annotated[Seconds, Field(ge=10, le=86400)] | None = Field(
        None,
        description="A worker that does not answer, or whose training makes no progress for so long, 10s at least, is "
        "given up and replaced; null: 20 times the length of a step, 10s at least. The first step of a generation may "
        "take 30 times as long; warming up, joining, an evaluation (from one forward pass to the next), a checkpoint "
        "and the export 60 times, and so may the first step of all. Whoever waits for others is not given up.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of everything random.")
    data_seed: int | None = Field(
        None, ge=0, lt=2**63, description="Of the order of samples and their augmentation alone; null: the seed."
    )
    labels: dict[Label, Label] = Field({}, max_length=64, description="Your own keys and values, to find it by.")

    @model_validator(mode="after")
    def _measures_what_it_follows(self) -> JobSpec:
        if self.elasticity.mode == "auto" and self.scaling.second_moment == "assume_noise":
            raise ValueError(
                "elasticity.mode auto follows the measured noise, and with scaling.second_moment assume_noise none is "
                "measured: take measured or per_worker, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _choose_second_moment(self) -> JobSpec:
        has_it, asked = RULES[self.optimizer.name].per_worker, self.scaling.second_moment
        if asked is not None and (has_it or asked != "per_worker"):
            return self
        choice = "per_worker" if has_it and _smallest_shards(self) >= 2 else "measured"
        return self.model_copy(update={"scaling": self.scaling.model_copy(update={"second_moment": choice})})


def global_batch(spec: JobSpec, workers: int) -> int:
    """B: samples per optimizer step with so many workers, at least one sample."""
    if spec.elasticity.mode == "hold":
        return spec.batch.base
    low, high = (round(kappa * spec.batch.base) for kappa in spec.elasticity.kappa)
    return max(1, min(max(spec.batch.per_worker * workers, low), high))


def kappa_at(spec: JobSpec, workers: int) -> float:
    """The batch multiplier B / B0 with so many workers."""
    return global_batch(spec, workers) / spec.batch.base


def _smallest_shards(spec: JobSpec) -> int:
    """Gradient shards a step at the smallest size: workers, times micro-batches on each."""
    workers = spec.elasticity.workers[0]
    per_worker = -(-global_batch(spec, workers) // workers)
    return workers * -(-per_worker // spec.batch.per_worker)


class ResizeRequest(BaseModel):
    """Body of POST /jobs/{id}/resize."""

    model_config = ConfigDict(extra="forbid")

    workers: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        description="How many, within the job's elasticity.workers. null: as many as that allows again; takes back the "
        "size that was asked for, and what waits."
    )
    at_samples: int | None = Field(
        None, ge=0, lt=2**63, description="Not before so many samples; null: at once, as where workers is null."
    )

    @field_validator("at_samples")
    @classmethod
    def _of_a_size(cls, at_samples: int | None, info: ValidationInfo) -> int | None:
        if at_samples is not None and "workers" in info.data and info.data["workers"] is None:
            raise ValueError("must be null where workers is null: a size is taken back at once")
        return at_samples


class ElasticityPatch(BaseModel):
    """The live part of `elasticity`."""

    model_config = ConfigDict(extra="forbid")

    workers: tuple[int, int] | None = Field(None, description="Fewest and most workers.")
    kappa: tuple[float, float] | None = Field(None, description="Smallest and largest batch multiplier.")


class JobPatch(BaseModel):
    """Body of PATCH /jobs/{id}: what may change while a job runs."""

    model_config = ConfigDict(extra="forbid")

    elasticity: ElasticityPatch | None = Field(None, description="What is left out stays.")
    priority: int | None = Field(None, ge=-1000, le=1000, description="Higher goes first.")
    labels: dict[Label, Label] | None = Field(None, max_length=64, description="Take the place of all that it has.")
