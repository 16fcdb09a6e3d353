"""Checkpoints that know no world size: tensors in safetensors files, everything else in a JSON manifest. No pickle.

    checkpoints/<samples, 15 digits>/<group>-<hash>.safetensors     written first, under names that nothing else has
    checkpoints/<samples, 15 digits>/manifest.json                  written last: with it the checkpoint exists

The manifest holds the format's version, the caller's meta (samples, kappa, f, base values, RNG, incarnation and
generation), size and SHA-256 of each file, and its own. So a write that fails, at any point, leaves what was there
before; a checkpoint that was torn or tampered with is noticed, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from workers.storage import NotStored, Storage, StorageError

FORMAT = 1
FOLDER = "checkpoints"
_MANIFEST = "manifest.json"
_CHECKPOINT = re.compile(r"[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9_]+")

Group = Mapping[str, Tensor]

Refusal = Callable[[Mapping[str, Any]], str | None]
"""The reason against a checkpoint, from its meta; None: there is none."""


def _none(_meta: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: tensors by group ("model", "ema", "optimizer") and name, and JSON beside them."""

    tensors: Mapping[str, Group]
    meta: Mapping[str, Any]


class CheckpointDamaged(Exception):
    """A checkpoint is torn, or not what its manifest says."""


def checkpoint_name(samples: int) -> str:
    """The name of a checkpoint after so many samples: names sort as samples do."""
    return f"{samples:015d}"


def samples_of(name: str) -> int:
    """The samples that a checkpoint's name stands for."""
    return int(name)


def capture(tensors: Mapping[str, Group], meta: Mapping[str, Any]) -> Snapshot:
    """Copy tensors to the CPU: training has to wait for this much of a checkpoint, and for no more.

    Tied tensors, one storage under several names of a group, are copied once and stay tied.
    """
    return Snapshot({group: _copies(named) for group, named in tensors.items()}, dict(meta))


def save(storage: Storage, name: str, snapshot: Snapshot, permit: Callable[[], None] = lambda: None) -> int:
    """Write a checkpoint and commit it; returns its size in bytes. Saved under a name in use, it replaces that one.

    `permit` is called before the commit, and raises where there must be none.
    Raises StorageError where storage fails, ValueError for what cannot be stored: meta that is not JSON, a tensor type
    that safetensors lacks. Nothing is committed then, and older checkpoints are as they were.
    """
    meta = _plain(snapshot.meta)
    files = {group: _write_group(storage, name, group, named) for group, named in snapshot.tensors.items()}
    manifest = {"format": FORMAT, "name": name, "meta": meta, "files": files}
    data = json.dumps({**manifest, "digest": _digest(manifest)}, indent=1).encode()
    permit()
    storage.write(_key(name, _MANIFEST), data)
    return len(data) + sum(int(file["bytes"]) for file in files.values())


def load(storage: Storage, name: str) -> Snapshot:
    """Read one checkpoint, every byte checked.

    Raises CheckpointDamaged; StorageError where storage fails, or the format is newer than this program.
    """
    try:
        manifest = _read_manifest(storage, name)
        tensors = {group: _read_group(storage, name, file) for group, file in manifest["files"].items()}
    except NotStored as error:
        raise CheckpointDamaged(f"{error.url} is missing") from error
    return Snapshot(tensors, manifest["meta"])


def load_latest(
    storage: Storage,
    on_skip: Callable[[str, str], None],
    refusal: Refusal = _none,
) -> tuple[str, Snapshot] | None:
    """Name and content of the newest checkpoint that is whole and not refused; None where there is none.

    `on_skip(name, reason)` is called for each that is damaged or
    refused on the way. StorageError passes through: storage that does not answer is no reason to fall back on older
    work.
    """
    for name in reversed(names(storage)):
        try:
            found = load(storage, name)
        except CheckpointDamaged as error:
            on_skip(name, str(error))
            continue
        if (reason := refusal(found.meta)) is None:
            return name, found
        on_skip(name, reason)
    return None


def names(storage: Storage) -> list[str]:
    """The names of all committed checkpoints, the oldest first."""
    return sorted(name for name, file in _files(storage) if file == _MANIFEST)


def prune(storage: Storage, keep: int, refusal: Refusal = _none) -> list[str]:
    """Delete all but the newest `keep` checkpoints, and what failed writes older than those left; returns names.

    Those that are refused go too, and do not count.
    """
    if keep < 1:
        raise ValueError(f"at least one checkpoint has to be kept, not {keep}")
    kept: list[str] = []
    refused: list[str] = []
    for name in reversed(names(storage)):
        (refused if _is_refused(storage, name, refusal) else kept).append(name)
        if len(kept) == keep:
            break
    return _delete(storage, lambda name: name in refused or (bool(kept) and name < kept[-1]))


def discard_after(storage: Storage, samples: int) -> list[str]:
    """Delete every checkpoint beyond `samples`: after a rollback to there they are of an abandoned line."""
    return _delete(storage, lambda name: name > checkpoint_name(samples))


def _is_refused(storage: Storage, name: str, refusal: Refusal) -> bool:
    """A damaged one is not: whoever loads skips it, and it may be all that tells of a fault."""
    try:
        return refusal(_read_manifest(storage, name)["meta"]) is not None
    except (CheckpointDamaged, NotStored):
        return False


def _delete(storage: Storage, chosen: Callable[[str], bool]) -> list[str]:
    """The manifest goes first, so that a deletion cut short leaves no checkpoint without its files."""
    gone = sorted({name for name, _ in _files(storage) if chosen(name)})
    for name in gone:
        storage.delete(_key(name, _MANIFEST))
        storage.delete(f"{FOLDER}/{name}")
    return gone


def _files(storage: Storage) -> Iterator[tuple[str, str]]:
    """Every file with the checkpoint that it is of; what others keep there is none."""
    for key in storage.list(FOLDER):
        _, name, *rest = key.split("/", 2)
        if rest and _CHECKPOINT.fullmatch(name):
            yield name, rest[0]


def _write_group(storage: Storage, name: str, group: str, named: Group) -> dict[str, Any]:
    """Write one file and return its entry in the manifest."""
    if not _NAME.fullmatch(group):
        raise ValueError(f"{group!r} cannot name a group of tensors: letters, digits and _ only")
    tensors, aliases = _apart(named)
    try:
        data = safetensors.torch.save(tensors)
    except (KeyError, SafetensorError) as error:
        raise ValueError(f"tensors of {group!r} cannot be stored: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    file = f"{group}-{digest[:16]}.safetensors"
    storage.write(_key(name, file), data)
    return {"file": file, "bytes": len(data), "sha256": digest, "aliases": aliases}


def _read_group(storage: Storage, name: str, file: Mapping[str, Any]) -> dict[str, Tensor]:
    data = storage.read(_key(name, file["file"]))
    if len(data) != file["bytes"]:
        raise CheckpointDamaged(f"{file['file']} has {len(data)} bytes instead of {file['bytes']}")
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise CheckpointDamaged(f"{file['file']} is not what was written")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointDamaged(f"{file['file']} holds no tensors: {error}") from error
    return {**tensors, **{alias: tensors[target] for alias, target in file["aliases"].items()}}


def _read_manifest(storage: Storage, name: str) -> dict[str, Any]:
    try:
        manifest = json.loads(storage.read(_key(name, _MANIFEST)))
        digest = manifest.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamaged("the manifest cannot be read") from error
    if digest != _digest(manifest) or manifest["name"] != name:
        raise CheckpointDamaged("the manifest is not what was written")
    if manifest["format"] > FORMAT:
        reason = f"format {manifest['format']} is newer than this program, which knows {FORMAT}"
        raise StorageError("read", storage.url_of(_key(name, _MANIFEST)), reason)
    return dict(manifest)


def _plain(meta: Mapping[str, Any]) -> Any:
    """The meta as it will be read back."""
    try:
        return json.loads(json.dumps(meta, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the meta of a checkpoint has to be JSON: {error}") from error


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _key(name: str, file: str) -> str:
    return f"{FOLDER}/{name}/{file}"


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies; tied tensors lie at the same place. Empty ones lie nowhere."""
    if not tensor.numel():
        return (id(tensor),)
    storage = tensor.untyped_storage().data_ptr()
    return (tensor.device, storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def _copies(named: Group) -> dict[str, Tensor]:
    copies: dict[tuple[Any, ...], Tensor] = {}
    for tensor in named.values():
        if _place(tensor) not in copies:
            dense = torch.contiguous_format
            copies[_place(tensor)] = tensor.detach().to("cpu", copy=True, memory_format=dense)
    return {name: copies[_place(tensor)] for name, tensor in named.items()}


def _apart(named: Group) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous CPU tensors of which no two share storage, as safetensors wants, and alias -> name for tied ones."""
    first: dict[tuple[Any, ...], str] = {}
    aliases = {name: first.setdefault(_place(tensor), name) for name, tensor in named.items()}
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name in first.values():
        tensor = named[name].detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors, {alias: name for alias, name in aliases.items() if alias != name}
