"""torch's own optimizers under the scaling rules: built, set, converted between batch sizes, and moved between workers.

All numbers come from `api_schemas.scaling`. Hyperparameters are written from derived values and never read back; state
is multiplied by ratios, at a step boundary, together with `apply`:

    convert(optimizer, switch("adam", base, kappa_old, kappa_new, ...))
    apply(optimizer, derive("adam", base, kappa_new, ...).values, lr_multiplier)

`feed_second_moment` replaces the squared gradient that Adam's v is about to average.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from api_schemas import scaling
from workers.optimizers import OPTIMIZERS

Switch = tuple[float, float]
"""(kappa_old, kappa_new)"""

LEAST_BETA2 = 1e-6
"""A second moment that remembers less remembers nothing."""

_COUNTERS = ("step", "mu_product")
_KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float}


def build(name: str, params: Iterable[Tensor], values: Mapping[str, Any]) -> Optimizer:
    """The optimizer of that row of RULES, torch's own where it has one, with values as `scaling.derive` returns them.

    Raises ValueError for a name that is no row.
    """
    row = scaling.RULES.get(name)
    if row is None:
        raise ValueError(f"there is no optimizer {name!r}; these can be built: {', '.join(sorted(scaling.RULES))}")
    kind: type[Optimizer] = getattr(torch.optim, row.torch_class) if row.torch_class else OPTIMIZERS[name]
    # By itself torch would take a parameter at a time on a CPU, in several passes over memory: five times as long.
    options: dict[str, Any] = {"fused": True} if "fused" in inspect.signature(kind).parameters else {}
    return kind(params, **_plain(values), **options)


def apply(optimizer: Optimizer, values: Mapping[str, Any], lr_multiplier: float = 1.0) -> None:
    """Write hyperparameters into every parameter group, the learning rate times the schedule's multiplier.

    Adagrad's `initial_accumulator_value` is written too, but counts only when state is made, in `build`. Raises
    ValueError, with nothing written, for a name that this optimizer does not have.
    """
    values = _plain(values)
    unknown = values.keys() - optimizer.defaults.keys()
    if unknown:
        raise ValueError(f"{type(optimizer).__name__} has no hyperparameter {', '.join(sorted(unknown))}")
    if "lr" in values:
        values["lr"] *= lr_multiplier
    for group in optimizer.param_groups:
        group.update(values)


@torch.no_grad()
def convert(optimizer: Optimizer, factors: Mapping[str, float], *, centered: Switch | None = None) -> None:
    """Multiply the optimizer's state in place by `factors`, by torch's state names.

    State that is not there yet, or has no factor, is left alone. `step` becomes fractional, which torch accepts. With
    `centered`, RMSProp's `square_avg` is converted too. Raises ValueError, with nothing touched, for a factor that is
    not a finite number above 0, and ScalingError (`kappa_invalid`) for such a kappa.
    """
    wrong = {name: factor for name, factor in factors.items() if not (math.isfinite(factor) and factor > 0)}
    if wrong:
        raise ValueError(f"state can be multiplied only by finite numbers above 0, not by {wrong}")
    if centered is not None:
        _convert_centered(optimizer, *centered)
    for name, factor in factors.items():
        if factor != 1:
            _multiply(optimizer, name, factor)


def _multiply(optimizer: Optimizer, name: str, factor: float) -> None:
    holders = [state for state in optimizer.state.values() if state.get(name) is not None]
    tensors = [state[name] for state in holders if isinstance(state[name], Tensor)]
    if tensors:
        torch._foreach_mul_(tensors, factor)
    for state in holders:
        if not isinstance(state[name], Tensor):
            state[name] = state[name] * factor


def _convert_centered(optimizer: Optimizer, kappa_old: float, kappa_new: float) -> None:
    scaling.check_kappa(kappa_old)
    scaling.check_kappa(kappa_new)
    for state in optimizer.state.values():
        if "grad_avg" in state:
            square, mean = state["square_avg"], state["grad_avg"]
            square.copy_(scaling.centered_square_avg(square, mean, kappa_old, kappa_new))


@torch.no_grad()
def feed_second_moment(
    optimizer: Optimizer, spread: Mapping[Tensor, Tensor], weights: scaling.SecondMomentWeights
) -> None:
    """Let the next step of Adam, AMSGrad or AdamW average `weights.square` g^2 + `weights.spread` Q instead of g^2.

    Call it before `step`, the gradients being final. v is moved by what beta2 v + (1 - beta2) g^2 will lack, so torch's
    own step, fused or not, does the rest; g includes coupled weight decay, as in torch's. `spread` is Q by parameter,
    needed where its weight is not 0. A beta2 below `LEAST_BETA2` is raised to it for this step: v could not carry the
    difference otherwise, and what it remembers is nothing in either case. Derived for this project.
    """
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        beta2 = max(beta2, LEAST_BETA2)
        group["betas"] = (beta1, beta2)
        params = [p for p in group["params"] if p.grad is not None]
        moments = [_adam_state(optimizer, p, group)["exp_avg_sq"] for p in params]
        scale = (1 - beta2) / beta2
        if weights.spread:
            torch._foreach_add_(moments, [spread[p] for p in params], alpha=scale * weights.spread)
        if weights.square != 1:
            # Before torch 2.7 the groups do not say it: Adam and AdamW were two classes.
            coupled = not group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW))
            gradients = _decayed(params, group["weight_decay"] if coupled else 0.0)
            torch._foreach_addcmul_(moments, gradients, gradients, value=scale * (weights.square - 1))


def _adam_state(optimizer: Optimizer, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter's state, made as torch's Adam makes it at its first step."""
    state: dict[str, Any] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=_state_device("step", parameter, group))
        names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        state.update((name, torch.zeros_like(parameter, memory_format=torch.preserve_format)) for name in names)
    return state


def _decayed(params: list[Tensor], weight_decay: float) -> list[Tensor]:
    """The gradients as Adam sees them: with the weight decay that is coupled to them."""
    gradients = [p.grad for p in params if p.grad is not None]
    return list(torch._foreach_add(gradients, params, alpha=weight_decay)) if weight_decay else gradients


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """All state as one flat dict: "parameter index.state name" -> the live tensor, not a copy.

    Parameters count through all groups. A Python number becomes a 0-dim tensor whose key ends in ":int", ":float" or
    ":bool". Parameters without state (no gradient yet) do not appear.
    """
    flat: dict[str, Tensor] = {}
    for index, (parameter, _) in enumerate(_owners(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                flat[f"{index}.{name}"] = value.detach()
            elif value is not None:
                flat[f"{index}.{name}:{type(value).__name__}"] = _number(value)
    return flat


def blank_state(name: str, params: Iterable[Tensor], values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Zeros for what `state_tensors` would return after a step, counters apart: memory to receive into.

    What state there is comes from a step of the optimizer on a parameter of no importance. Raises as `build` does.
    """
    probe = torch.ones(2, 2, requires_grad=True)
    optimizer = build(name, [probe], values)
    probe.grad = torch.ones_like(probe)
    optimizer.step()
    state = optimizer.state[probe]
    names = [each for each, value in state.items() if isinstance(value, Tensor) and value.shape == probe.shape]
    return {f"{i}.{each}": torch.zeros_like(p) for i, p in enumerate(params) for each in names}


def load_state_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor], *, adopt: bool = False) -> None:
    """Replace all state by copies of what `state_tensors` returned, on an optimizer that has state or has none yet.

    With `adopt` by the tensors themselves, where the device allows: nobody else may use them then. Dtypes stay exactly
    as they are; tensors move to their parameter's device. Raises ValueError, with nothing replaced, for a parameter
    that is not there or has another shape.
    """
    owners = _owners(optimizer)
    loaded: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name, kind = _parse(key)
        if index >= len(owners):
            raise ValueError(f"state {key!r} belongs to none of the optimizer's {len(owners)} parameters")
        parameter, group = owners[index]
        if tensor.dim() and tensor.shape != parameter.shape:
            raise ValueError(f"state {key!r} has shape {tuple(tensor.shape)}, its parameter {tuple(parameter.shape)}")
        moved = tensor.detach().to(_state_device(name, parameter, group), copy=not adopt)
        loaded.setdefault(index, {})[name] = kind(moved.item()) if kind else moved
    optimizer.state.clear()
    for index, state in loaded.items():
        optimizer.state[owners[index][0]] = state


def _owners(optimizer: Optimizer) -> list[tuple[Tensor, dict[str, Any]]]:
    """Every parameter with its group, in the order that numbers the state."""
    return [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]


def _number(value: Any) -> Tensor:
    if type(value).__name__ not in _KINDS:
        raise ValueError(f"optimizer state of type {type(value).__name__} cannot be stored as a tensor")
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def _parse(key: str) -> tuple[int, str, type | None]:
    index, _, name = key.partition(".")
    name, _, kind = name.partition(":")
    if not index.isdecimal() or not name or (kind and kind not in _KINDS):
        raise ValueError(f'{key!r} is not a state name such as "0.exp_avg"')
    return int(index), name, _KINDS.get(kind)


def _state_device(name: str, parameter: Tensor, group: Mapping[str, Any]) -> torch.device:
    """torch keeps counters on the CPU unless a fused or capturable step reads them on the device."""
    on_cpu = name in _COUNTERS and not (group.get("capturable") or group.get("fused"))
    return torch.device("cpu") if on_cpu else parameter.device


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which betas, a list after a trip through JSON, are the tuple that torch wants."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
