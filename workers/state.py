"""Everything that a worker must have to go on: as named tensors and a JSON value, for a peer or for a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.membership import Transfers
from workers.mesh import Mesh

Groups = dict[str, dict[str, Tensor]]
"""Group such as "model", "ema", "optimizer" -> name -> tensor."""

_SMALL = 4096
"""Elements up to which a tensor travels packed with the others of its kind: one message instead of hundreds."""


@dataclass(frozen=True)
class State:
    """The tensors (live or received) and everything that is no tensor."""

    groups: Groups
    meta: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for group in self.groups.values() for tensor in group.values())


def exchange(mesh: Mesh, plan: Transfers, state: State | None) -> State | None:
    """Hand the state of the sources to the receivers; returns what a receiver got, None elsewhere.

    Sources send from where the tensors lie, all in flight together, and take turns when there are several. Raises
    MeshBroken.
    """
    if not plan.receivers:
        return None
    if mesh.rank in plan.receivers:
        return _receive(mesh, plan)
    if state is not None:
        _send(mesh, plan, state)
    return None


def _send(mesh: Mesh, plan: Transfers, state: State) -> None:
    header, pieces = _pieces(state)
    mine = [piece for number, piece in enumerate(pieces) if plan.source_of(number) == mesh.rank]
    works = []
    for receiver in plan.receivers:
        first = [torch.tensor([len(header)]), header] if mesh.rank == plan.sources[0] else []
        works += mesh.send([*first, *mine], receiver)
    mesh.wait(works)


def _receive(mesh: Mesh, plan: Transfers) -> State:
    lead = plan.sources[0]
    length = torch.zeros(1, dtype=torch.int64)
    mesh.wait(mesh.receive([length], lead))
    text = torch.empty(int(length), dtype=torch.uint8)
    mesh.wait(mesh.receive([text], lead, first_tag=1))
    header = json.loads(text.numpy().tobytes())
    state, pieces = _allocate(header)
    works = []
    for source in plan.sources:
        mine = [piece for number, piece in enumerate(pieces) if plan.source_of(number) == source]
        works += mesh.receive(mine, source, first_tag=2 if source == lead else 0)
    mesh.wait(works)
    return state


def _pieces(state: State) -> tuple[Tensor, list[Tensor]]:
    """The header as bytes, and the tensors that travel: small ones of a dtype packed into one, in the header's order."""
    names = [(group, name, tensor) for group, tensors in state.groups.items() for name, tensor in tensors.items()]
    described = [[group, name, list(t.shape), str(t.dtype).removeprefix("torch.")] for group, name, t in names]
    header = json.dumps({"meta": state.meta, "groups": list(state.groups), "tensors": described}).encode()
    tensors = [tensor.detach() for _, _, tensor in names]
    return torch.frombuffer(bytearray(header), dtype=torch.uint8), [
        *(torch.cat([tensor.reshape(-1).cpu() for tensor in batch]) for batch in _packs(tensors)),
        *(tensor.contiguous() for tensor in tensors if not _is_small(tensor)),
    ]


def _allocate(header: dict[str, Any]) -> tuple[State, list[Tensor]]:
    """Tensors to receive into: those of the state, and the pieces in which they travel (packs share their memory)."""
    groups: Groups = {group: {} for group in header["groups"]}
    described = [(group, name, shape, getattr(torch, dtype)) for group, name, shape, dtype in header["tensors"]]
    tensors = [torch.empty(shape, dtype=dtype) for _, _, shape, dtype in described]
    packs = []
    for batch in _packs(tensors):
        pack = torch.empty(sum(t.numel() for t in batch), dtype=batch[0].dtype)
        packs.append(pack)
        for tensor, part in zip(batch, torch.split(pack, [t.numel() for t in batch]), strict=True):
            tensor.set_(part.view(tensor.shape))
    for (group, name, _, _), tensor in zip(described, tensors, strict=True):
        groups[group][name] = tensor
    return State(groups, header["meta"]), [*packs, *(tensor for tensor in tensors if not _is_small(tensor))]


def _is_small(tensor: Tensor) -> bool:
    return tensor.numel() <= _SMALL


def _packs(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The small tensors by dtype, in order."""
    packs: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if _is_small(tensor):
            packs.setdefault(tensor.dtype, []).append(tensor)
    return list(packs.values())
