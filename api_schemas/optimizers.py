"""The optimizer part of a job spec: one model for each row of the scaling table.

The models are made from `api_schemas.scaling.RULES`, so a new row is a new optimizer of the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from api_schemas.scaling import RULES

_Decay = Annotated[float, Field(ge=0, lt=1)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

FIELDS: dict[str, tuple[Any, str]] = {
    "lr": (Annotated[float, Field(gt=0, allow_inf_nan=False)], "Peak learning rate at the base batch."),
    "momentum": (_Decay, "Momentum at the base batch."),
    "dampening": (Annotated[float, Field(ge=0, le=1)], "Dampening of the momentum."),
    "nesterov": (bool, "Nesterov momentum."),
    "weight_decay": (_NonNegative, "Weight decay at the base batch: decoupled for AdamW, else added to the gradient."),
    "betas": (tuple[_Decay, _Decay], "Decays of the first and second moment at the base batch."),
    "eps": (_NonNegative, "Added to the denominator, at the base batch."),
    "amsgrad": (bool, "Keep the largest second moment seen."),
    "alpha": (_Decay, "Decay of the squared gradient at the base batch."),
    "centered": (bool, "Divide by the gradient's standard deviation instead of its root mean square."),
    "momentum_decay": (_NonNegative, "NAdam's momentum decay at the base batch."),
    "decoupled_weight_decay": (bool, "Apply weight decay to the weights instead of the gradient."),
    "lr_decay": (_NonNegative, "Adagrad's decay of the learning rate at the base batch."),
    "initial_accumulator_value": (_NonNegative, "What Adagrad's sum starts from, at the base batch."),
}
"""Type and meaning of every hyperparameter that an optimizer of the table can have."""


class _Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str

    def base(self) -> dict[str, Any]:
        """The base hyperparameters, by torch's names."""
        return self.model_dump(exclude={"name"})


def _model(name: str) -> type[_Optimizer]:
    fields: dict[str, Any] = {"name": (Literal[name], Field(description="Which optimizer."))}
    for key, default in RULES[name].defaults.items():
        kind, meaning = FIELDS[key]
        fields[key] = (kind, Field(... if key == "lr" else default, description=meaning))
    meaning = f"The hyperparameters of {name} at the base batch, by torch's names."
    return create_model(f"{name.capitalize()}Spec", __base__=_Optimizer, __module__=__name__, __doc__=meaning, **fields)


OPTIMIZERS: dict[str, type[_Optimizer]] = {name: _model(name) for name in RULES}

if TYPE_CHECKING:
    OptimizerSpec = _Optimizer  # what all members of the union share: a type checker cannot see those made at run time
else:
    OptimizerSpec = Annotated[Union[tuple(OPTIMIZERS.values())], Field(discriminator="name")]  # noqa: UP007
