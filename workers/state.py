"""Everything that a worker must have to go on: as named tensors and a JSON value, for a peer or for a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.group import Group
from workers.membership import Transfers

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


def exchange(peers: Group, plan: Transfers, state: State | None, landing: Groups | None = None) -> State | None:
    """Hand the state of the sources to the receivers; returns what a receiver got, None elsewhere.

    Sources send from where the tensors lie, all in flight together, and take turns when there are several. What arrives
    is contiguous and on the CPU; tensors that were tied at the source are no longer, and small ones are views of shared
    memory. Large ones land in a receiver's own tensors of the same name in `landing`, if it brings them: memory that is
    used for the first time costs as much as what is received into it. They hold anything once an exchange has failed.
    Raises MeshBroken, and ValueError at a source without a state.
    """
    if not plan.receivers:
        return None
    if peers.rank in plan.receivers:
        return _receive(peers, plan, landing or {})
    if peers.rank in plan.sources:
        if state is None:
            raise ValueError(f"rank {peers.rank} is to hand on a state, and has none")
        _send(peers, plan, state)
    return None


def _send(peers: Group, plan: Transfers, state: State) -> None:
    header, pieces = _pieces(state)
    mine = [piece for number, piece in enumerate(pieces) if plan.source_of(number) == peers.rank]
    first = [torch.tensor([len(header)]), header] if peers.rank == plan.sources[0] else []
    peers.wait([work for receiver in plan.receivers for work in peers.send([*first, *mine], receiver)])


def _receive(peers: Group, plan: Transfers, landing: Groups) -> State:
    lead = plan.sources[0]
    length = torch.zeros(1, dtype=torch.int64)
    peers.wait(peers.receive([length], lead))
    text = torch.empty(int(length), dtype=torch.uint8)
    peers.wait(peers.receive([text], lead, first_tag=1))
    header = json.loads(text.numpy().tobytes())
    state, pieces = _allocate(header, landing)
    works = []
    for source in plan.sources:
        mine = [piece for number, piece in enumerate(pieces) if plan.source_of(number) == source]
        works += peers.receive(mine, source, first_tag=2 if source == lead else 0)
    peers.wait(works)
    return state


def _pieces(state: State) -> tuple[Tensor, list[Tensor]]:
    """The header as bytes, and the tensors that travel: small ones of a dtype packed into one, then the large ones."""
    named = [(group, name, tensor) for group, tensors in state.groups.items() for name, tensor in tensors.items()]
    described = [[group, name, list(t.shape), str(t.dtype).removeprefix("torch.")] for group, name, t in named]
    header = json.dumps({"meta": state.meta, "groups": list(state.groups), "tensors": described}).encode()
    tensors = [tensor.detach().cpu().contiguous() for _, _, tensor in named]
    small, large = _sorted([(tensor.numel(), tensor.dtype) for tensor in tensors])
    packs = [torch.cat([tensors[i].reshape(-1) for i in numbers]) for numbers in small]
    return torch.frombuffer(bytearray(header), dtype=torch.uint8), [*packs, *(tensors[i] for i in large)]


def _allocate(header: dict[str, Any], landing: Groups) -> tuple[State, list[Tensor]]:
    """Tensors to receive into: those of the state, and the pieces in which they travel, which are the same memory."""
    names = [(group, name) for group, name, _, _ in header["tensors"]]
    shapes = [(torch.Size(shape), getattr(torch, dtype)) for _, _, shape, dtype in header["tensors"]]
    small, large = _sorted([(shape.numel(), dtype) for shape, dtype in shapes])
    own = [landing.get(group, {}).get(name) for group, name in names]
    tensors = {i: _fitting(own[i], *shapes[i]) for i in large}
    pieces = list(tensors.values())
    for numbers in reversed(small):
        sizes = [shapes[i][0].numel() for i in numbers]
        pieces.insert(0, torch.empty(sum(sizes), dtype=shapes[numbers[0]][1]))
        tensors |= {i: part.view(shapes[i][0]) for i, part in zip(numbers, torch.split(pieces[0], sizes), strict=True)}
    groups: Groups = {group: {} for group in header["groups"]}
    for i, (group, name) in enumerate(names):
        groups[group][name] = tensors[i]
    return State(groups, header["meta"]), pieces


def _fitting(own: Tensor | None, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """That tensor where it can take in one like this, else a new one."""
    if (
        own is not None
        and own.device.type == "cpu"
        and own.is_contiguous()
        and (own.shape, own.dtype) == (shape, dtype)
    ):
        return own
    return torch.empty(shape, dtype=dtype)


def _sorted(kinds: Sequence[tuple[int, torch.dtype]]) -> tuple[list[list[int]], list[int]]:
    """Which tensors, given as (elements, dtype), travel packed with which others, and which ones alone; by position."""
    packs: dict[torch.dtype, list[int]] = {}
    for i, (elements, dtype) in enumerate(kinds):
        if elements <= _SMALL:
            packs.setdefault(dtype, []).append(i)
    return list(packs.values()), [i for i, (elements, _) in enumerate(kinds) if elements > _SMALL]
