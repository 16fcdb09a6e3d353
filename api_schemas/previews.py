"""What a scaling rule or a job would do, worked out before anything runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api_schemas.jobs import JobSpec
from api_schemas.optimizers import OptimizerSpec
from api_schemas.views import Batch, Codes, Kappa, Values


class ScalingPreviewRequest(BaseModel):
    """Body of POST /scaling/preview. Every value is the one tuned at the base batch."""

    model_config = ConfigDict(extra="forbid")

    optimizer: OptimizerSpec = Field(description="Which optimizer, and its hyperparameters at the base batch.")
    ema: float | None = Field(None, ge=0, le=1, description="Momentum of the EMA at the base batch: rho in the paper.")
    bn_momentum: float | None = Field(None, gt=0, le=1, description="BatchNorm's momentum, as torch counts it.")
    rule: Literal["matched", "published"] = Field("matched", description="As `scaling.rule` of a job.")
    second_moment: Literal["assume_noise", "measured", "per_worker"] = Field(
        "assume_noise", description="As `scaling.second_moment` of a job."
    )
    f: float = Field(1.0, ge=0, le=1, description="Noise fraction; read by `measured` alone.")
    kappas: list[Annotated[float, Field(gt=0, le=1e4)]] = Field(
        min_length=1, max_length=64, description="Batch multipliers, a row for each."
    )


class ScalingRow(BaseModel):
    """Everything in force at one kappa."""

    kappa: Kappa
    values: Values
    warnings: Codes
    error: str | None = Field(None, description="Code of the rule that refuses this kappa; `values` is empty then.")


class ScalingPreview(BaseModel):
    """A row per kappa, in the order asked for."""

    items: list[ScalingRow] = Field(description="A row per kappa.")
    next: None = Field(None, description="Nothing follows: it is always whole.")


class SizePreview(BaseModel):
    """A job at one number of workers."""

    workers: int = Field(description="How many.")
    batch: Batch
    kappa: Kappa
    values: Values
    warnings: Codes
    error: str | None = Field(None, description="Code of the rule that refuses this size; `values` is empty then.")


class JobPreview(BaseModel):
    """Answer to POST /jobs?dry_run=true: the spec with its defaults filled in, and the sizes it may have."""

    spec: JobSpec
    sizes: list[SizePreview] = Field(description="Fewest to most workers; thinned out where there are many.")
    warnings: list[str] = Field([], description="Sentences on what else is to be known of the values.")
