"""What a scaling rule or a job would do, worked out before anything runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api_schemas.jobs import JobSpec
from api_schemas.optimizers import OptimizerSpec
from api_schemas.views import Values


class ScalingPreviewRequest(BaseModel):
    """Body of POST /scaling/preview. Every value is the one tuned at the base batch."""

    model_config = ConfigDict(extra="forbid")

    optimizer: OptimizerSpec
    ema: float | None = Field(None, ge=0, le=1, description="rho at the base batch.")
    bn_momentum: float | None = Field(None, gt=0, le=1, description="BatchNorm's momentum, as torch counts it.")
    rule: Literal["matched", "published"] = "matched"
    second_moment: Literal["assume_noise", "measured", "per_worker"] = "assume_noise"
    f: float = Field(1.0, ge=0, le=1, description="Noise fraction; read by `measured` alone.")
    kappas: list[Annotated[float, Field(gt=0, le=1e4)]] = Field(min_length=1, max_length=64)


class ScalingRow(BaseModel):
    """Everything in force at one kappa."""

    kappa: float
    values: Values = Field(description="What `scaling.derive` returns, and ema_momentum, bn_momentum where given.")
    warnings: list[str] = Field(description="Codes of the scaling rules.")
    error: str | None = Field(None, description="Code of the rule that refuses this kappa; `values` is empty then.")


class ScalingPreview(BaseModel):
    """A row per kappa, in the order asked for."""

    items: list[ScalingRow]
    next: None = None


class SizePreview(BaseModel):
    """A job at one number of workers."""

    workers: int
    batch: int
    kappa: float
    values: Values
    warnings: list[str]
    error: str | None = Field(None, description="Code of the rule that refuses this size; `values` is empty then.")


class JobPreview(BaseModel):
    """Answer to POST /jobs?dry_run=true: the spec with its defaults filled in, and the sizes it may have."""

    spec: JobSpec
    sizes: list[SizePreview] = Field(description="Fewest to most workers; thinned out where there are many.")
