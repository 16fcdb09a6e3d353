"""Checkpoints: bit for bit, committed or not there, and never worse off after a failure."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workers import checkpoint, optim
from workers.checkpoint import CheckpointDamaged, Snapshot, capture, checkpoint_name, load, load_latest, names, save
from workers.storage import Storage, StorageError

META = {
    "samples": 640,
    "kappa": 2.5,
    "f": 0.1 + 0.2,
    "incarnation": 1,
    "generation": 4,
    "base": {"betas": [0.9, 0.999]},
}


class FullDisk(Storage):
    """Fails the write number `fail_at`, and all after it, as a full disk does."""

    fail_at = 10**9

    def write(self, key: str, data: bytes) -> None:
        self.fail_at -= 1
        if self.fail_at < 0:
            raise StorageError("write", self.url_of(key), "No space left on device")
        super().write(key, data)


@pytest.fixture(params=["path", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> FullDisk:
    return FullDisk(str(tmp_path) if request.param == "path" else request.getfixturevalue("bucket").url)


def snapshot(seed: int = 0, **meta: Any) -> Snapshot:
    generator = torch.Generator().manual_seed(seed)
    weights = {"layer.weight": torch.randn(4, 3, generator=generator), "layer.bias": torch.ones(4)}
    state = {"0.step": torch.tensor(2.5), "0.exp_avg": torch.randn(4, 3, generator=generator).bfloat16()}
    return Snapshot({"model": weights, "optimizer": state, "empty": {}}, {**META, **meta})


def same(one: Snapshot, two: Snapshot) -> bool:
    if one.meta != two.meta or one.tensors.keys() != two.tensors.keys():
        return False
    pairs = [(group, name) for group in one.tensors for name in {**one.tensors[group], **two.tensors[group]}]
    both = [(one.tensors[group][name], two.tensors[group][name]) for group, name in pairs]
    return all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in both)


def unexpected(name: str, reason: str) -> None:
    pytest.fail(f"{name} was skipped: {reason}")


def file(storage: Storage, name: str, part: str) -> str:
    """The key of a checkpoint's file that begins so."""
    return next(key for key in storage.list(f"checkpoints/{name}") if key.split("/")[2].startswith(part))


def change(storage: Storage, key: str, change: Callable[[bytes], bytes]) -> None:
    storage.write(key, change(storage.read(key)))


def test_round_trip_is_exact(storage: Storage) -> None:
    size = save(storage, checkpoint_name(640), snapshot())
    assert same(load(storage, checkpoint_name(640)), snapshot())
    assert size == sum(len(storage.read(key)) for key in storage.list())


dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool])
shapes = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(dtypes, shapes), max_size=5))
def test_any_tensor_survives(storage: Storage, kinds: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = {name: torch.randn(shape).mul(10).to(dtype) for name, (dtype, shape) in kinds.items()}
    original = Snapshot({"t": tensors}, {})
    save(storage, "1", original)
    assert same(load(storage, "1"), original)


def test_training_continues_bit_for_bit(storage: Storage) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = optim.build("adam", model.parameters(), {"lr": 0.01})

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()

    step(model, optimizer, 1)
    groups = {"model": model.state_dict(), "optimizer": optim.state_tensors(optimizer)}
    save(storage, checkpoint_name(8), capture(groups, {}))
    loaded = load(storage, checkpoint_name(8))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(loaded.tensors["model"])
    resumed = optim.build("adam", other.parameters(), {"lr": 0.01})
    optim.load_state_tensors(resumed, loaded.tensors["optimizer"])
    step(model, optimizer, 2)
    step(other, resumed, 2)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_capture_does_not_see_later_changes() -> None:
    weight = torch.ones(3)
    taken = capture({"model": {"w": weight}}, META)
    weight.zero_()
    assert taken.tensors["model"]["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("captured", [True, False])
def test_tied_and_overlapping_tensors(storage: Storage, captured: bool) -> None:
    base = torch.arange(12.0)
    named = {
        "embedding": base.view(3, 4),
        "head": base.view(3, 4),
        "flat": base,
        "slice": base[2:5],
        "turned": base.view(3, 4).t(),
        "spread": torch.ones(1).expand(5),
    }
    save(storage, "1", capture({"m": named}, {}) if captured else Snapshot({"m": named}, {}))
    loaded = load(storage, "1").tensors["m"]
    assert loaded.keys() == named.keys()
    assert all(torch.equal(loaded[name], named[name]) for name in named)
    assert loaded["head"] is loaded["embedding"]


def test_a_model_with_tied_weights(storage: Storage) -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save(storage, "1", capture({"model": model.state_dict()}, {}))
    entry = json.loads(storage.read(file(storage, "1", "manifest")))["files"]["model"]
    assert entry["aliases"] == {"1.weight": "0.weight"}
    model.load_state_dict(load(storage, "1").tensors["model"])


def test_the_newest_wins_and_names_sort_by_samples(storage: Storage) -> None:
    assert load_latest(storage, unexpected) is None
    for samples in (900, 1000, 99):
        save(storage, checkpoint_name(samples), snapshot(samples=samples))
    assert [checkpoint.samples_of(name) for name in names(storage)] == [99, 900, 1000]
    found = load_latest(storage, unexpected)
    assert found is not None
    assert found[1].meta["samples"] == 1000


def tear_weights(storage: Storage, name: str) -> None:
    change(storage, file(storage, name, "model"), lambda data: data[:-5])


def flip_a_bit(storage: Storage, name: str) -> None:
    change(storage, file(storage, name, "model"), lambda data: data[:-1] + bytes([data[-1] ^ 1]))


def lose_a_file(storage: Storage, name: str) -> None:
    storage.delete(file(storage, name, "optimizer"))


def tear_manifest(storage: Storage, name: str) -> None:
    change(storage, file(storage, name, "manifest"), lambda data: data[:-20])


def empty_manifest(storage: Storage, name: str) -> None:
    storage.write(file(storage, name, "manifest"), b"[]")


def edit_manifest(storage: Storage, name: str) -> None:
    change(storage, file(storage, name, "manifest"), lambda data: data.replace(b'"kappa": 2.5', b'"kappa": 2.4'))


def foreign_manifest(storage: Storage, name: str) -> None:
    other = file(storage, checkpoint_name(100), "manifest")
    storage.write(file(storage, name, "manifest"), storage.read(other))


def smuggle_a_pickle(storage: Storage, name: str) -> None:
    """In the place of tensors, with a manifest that vouches for it."""
    weights = file(storage, name, "model")
    storage.write(weights, pickle.dumps(Bomb()))

    def vouch(data: bytes) -> bytes:
        manifest = json.loads(data)
        content = storage.read(weights)
        manifest["files"]["model"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        del manifest["digest"]
        return json.dumps({**manifest, "digest": checkpoint._digest(manifest)}).encode()

    change(storage, file(storage, name, "manifest"), vouch)


class Bomb:
    """Fails the test where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


DAMAGES = [
    tear_weights,
    flip_a_bit,
    lose_a_file,
    tear_manifest,
    empty_manifest,
    edit_manifest,
    foreign_manifest,
    smuggle_a_pickle,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_reason(storage: Storage, damage: Any) -> None:
    good, bad = checkpoint_name(100), checkpoint_name(200)
    save(storage, good, snapshot(1))
    save(storage, bad, snapshot(2))
    damage(storage, bad)
    skipped: list[tuple[str, str]] = []
    found = load_latest(storage, lambda *what: skipped.append(what))
    assert found is not None
    assert found[0] == good
    assert same(found[1], snapshot(1))
    assert [name for name, _ in skipped] == [bad]
    assert skipped[0][1]
    with pytest.raises(CheckpointDamaged):
        load(storage, bad)


@pytest.mark.parametrize("fail_at", range(4))
@pytest.mark.parametrize("name", [checkpoint_name(100), checkpoint_name(200)])
def test_a_failing_write_harms_nothing(storage: FullDisk, name: str, fail_at: int) -> None:
    save(storage, checkpoint_name(100), snapshot(1))
    storage.fail_at = fail_at
    with pytest.raises(StorageError, match="No space left"):
        save(storage, name, snapshot(2))
    found = load_latest(storage, unexpected)
    assert found is not None
    assert same(found[1], snapshot(1))


@pytest.mark.parametrize("storage", ["path"], indirect=True)
def test_a_file_in_place_of_the_folder(storage: Storage) -> None:
    storage.write("checkpoints", b"")
    with pytest.raises(StorageError, match="cannot write"):
        save(storage, "1", snapshot())


def test_a_name_saved_again_is_replaced(storage: Storage) -> None:
    save(storage, "1", snapshot(1))
    save(storage, "1", snapshot(2))
    assert same(load(storage, "1"), snapshot(2))


def test_storage_that_does_not_answer_is_not_a_damaged_checkpoint(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2"):
        save(storage, name, snapshot())

    def refuse(self: Storage, key: str) -> bytes:
        raise StorageError("read", self.url_of(key), "timed out")

    monkeypatch.setattr(Storage, "read", refuse)
    with pytest.raises(StorageError, match="timed out"):
        load_latest(storage, unexpected)


def test_a_newer_format_is_refused_not_skipped(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save(storage, "1", snapshot())
    monkeypatch.undo()
    with pytest.raises(StorageError, match="format 2 is newer"):
        load_latest(storage, unexpected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Snapshot({"m": {}}, {"x": float("nan")}), "has to be JSON"),
        (Snapshot({"m": {}}, {"x": object()}), "has to be JSON"),
        (Snapshot({"../m": {}}, {}), "cannot name a group"),
        (Snapshot({"m": {"x": torch.zeros(1, dtype=torch.complex128)}}, {}), "cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused(storage: Storage, content: Snapshot, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save(storage, "1", content)
    assert names(storage) == []


def test_prune_keeps_the_newest_and_clears_failed_writes(storage: FullDisk) -> None:
    storage.fail_at = 1
    with pytest.raises(StorageError):
        save(storage, checkpoint_name(50), snapshot())
    storage.fail_at = 10**9
    assert checkpoint.prune(storage, 2) == []
    for samples in (100, 200, 300):
        save(storage, checkpoint_name(samples), snapshot())
    assert checkpoint.prune(storage, 2) == [checkpoint_name(50), checkpoint_name(100)]
    assert names(storage) == [checkpoint_name(200), checkpoint_name(300)]
    assert {key.split("/")[1] for key in storage.list()} == set(names(storage))
    with pytest.raises(ValueError, match="at least one"):
        checkpoint.prune(storage, 0)


def test_what_others_keep_beside_checkpoints_is_none(storage: Storage) -> None:
    """A copy is neither loaded as the newest one nor deleted."""
    save(storage, checkpoint_name(100), snapshot())
    (copied,) = [key for key in storage.list("checkpoints") if key.endswith("manifest.json")]
    copy_of = "checkpoints/backup/manifest.json"
    storage.write(copy_of, storage.read(copied))
    storage.write("checkpoints/notes", b"of mine")
    assert names(storage) == [checkpoint_name(100)]
    save(storage, checkpoint_name(200), snapshot(1))
    assert checkpoint.prune(storage, keep=1) == [checkpoint_name(100)]
    assert checkpoint.discard_after(storage, 0) == [checkpoint_name(200)]
    assert sorted(storage.list("checkpoints")) == [copy_of, "checkpoints/notes"]


def test_an_abandoned_line_is_discarded(storage: Storage) -> None:
    for samples in (100, 200, 300):
        save(storage, checkpoint_name(samples), snapshot())
    assert checkpoint.discard_after(storage, 150) == [checkpoint_name(200), checkpoint_name(300)]
    assert names(storage) == [checkpoint_name(100)]


def test_nothing_is_pickled(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((pickle, "loads"), (pickle, "dumps"), (torch, "save"), (torch, "load")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("pickled"))
    save(storage, "1", snapshot())
    assert isinstance(load(storage, "1").tensors["model"]["layer.weight"], Tensor)


def test_errno_reaches_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="Disk quota exceeded"):
        save(Storage(str(tmp_path)), "1", snapshot())
