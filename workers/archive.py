"""What a job leaves in its storage by whoever leads it: checkpoints, and at the end the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import safetensors.torch
from torch import Tensor

from api_schemas.exchange import Launch
from workers import checkpoint
from workers.checkpoint import Snapshot
from workers.checkpoint_writer import CheckpointWriter, Failed, Saved
from workers.fence import Fences, Term
from workers.journal import Journal
from workers.state import State
from workers.storage import Pause, Result, Storage, StorageError, patiently

ARTIFACTS = "artifacts"
PATIENCE_S = 300.0
"""How long a storage that does not answer is waited for, where without it nothing goes on."""


class Overtaken(Exception):
    """A later generation restored from a checkpoint: what this one trained on is of an abandoned line."""


class Archive:
    """The checkpoints and artifacts of one job, as one worker writes them in its present term."""

    def __init__(
        self, storage: Storage, journal: Journal, *, incarnation: int, keep: int, about: dict[str, Any]
    ) -> None:
        """`about` goes into every manifest: the job's base values and its seed."""
        self._storage = storage
        self._journal = journal
        self._fences = Fences(storage)
        self._about = about
        self._term = Term(incarnation, 0)
        self._writer: CheckpointWriter | None = None  # made by the first to lead: its thread is for nobody else
        self._keep = keep
        self.saved = -1  # samples of the last checkpoint that this worker wrote; -1: none yet
        self.save_s = 0.0  # how long the last checkpoint took until it was durable; 0: none yet

    @classmethod
    def of(cls, launch: Launch, journal: Journal) -> Self:
        """That of a job's worker."""
        spec = launch.spec
        return cls(
            Storage(launch.storage),
            journal,
            incarnation=launch.incarnation,
            keep=spec.checkpoint.keep,
            about={"spec": spec.model_dump(mode="json"), "seed": spec.seed},
        )

    def enter(self, generation: int) -> None:
        """What is written from now on belongs to this generation."""
        self._term = self._term._replace(generation=generation)

    def latest(self, pause: Pause = time.sleep) -> State | None:
        """The newest whole checkpoint of the surviving line; from now on the line leads through this term.

        None: there is none, training begins. A storage that does not answer is tried again for PATIENCE_S. Raises
        StorageError, Overtaken, and what `pause` raises.
        """
        return self._patiently(self._latest, pause)

    def _latest(self) -> State | None:
        snapshot = self._newest()
        samples = snapshot.meta["samples"] if snapshot else 0
        self._fences.put_up(self._term, samples)
        self._permit()  # reading may have taken long, and what lies beyond be a successor's by now
        checkpoint.discard_after(self._storage, samples)
        if snapshot is None:
            return None
        return State({group: dict(named) for group, named in snapshot.tensors.items()}, dict(snapshot.meta))

    def save(self, state: State | None, *, last: bool) -> None:
        """Copy the state and write it beside the training; with `last`, return once it is written or failed.

        All members call it at the same sample, and the lead alone has a state.
        """
        if state is None:
            return
        if self._writer is None:
            self._writer = CheckpointWriter(
                self._storage, self._report, keep=self._keep, permit=self._permit, refusal=self._refusal
            )
        self._writer.submit(checkpoint.checkpoint_name(state.meta["samples"]), self._snapshot(state))
        if last:
            self.settle()

    def settle(self) -> None:
        """Return once all that was saved is written or failed."""
        if self._writer is not None:
            self._writer.flush()

    def export(self, state: State, pause: Pause = time.sleep) -> dict[str, str]:
        """Write the weights and their average, each as a file of safetensors; name -> URL. Raises as `latest` does."""
        groups = {f"{name}.safetensors": state.groups[name] for name in ("model", "ema") if name in state.groups}

        def write() -> dict[str, str]:
            self._permit()
            return {name: self._export(name, tensors) for name, tensors in groups.items()}

        return self._patiently(write, pause)

    def _patiently(self, call: Callable[[], Result], pause: Pause) -> Result:
        return patiently(call, PATIENCE_S, pause, on_refusal=self._tell_of)

    def _tell_of(self, error: StorageError) -> None:
        message = f"The storage does not do its part, and is tried again for {PATIENCE_S:g} s: {error}."
        self._journal.record("warning", code="storage_away", message=message)

    def _newest(self) -> Snapshot | None:
        found = checkpoint.load_latest(self._storage, self._skipped, self._refusal)
        return found[1] if found else None

    def _snapshot(self, state: State) -> Snapshot:
        return checkpoint.capture(state.groups, {**state.meta, **self._about, **self._term._asdict()})

    def _export(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Each tensor whole, tied ones too: other programs know nothing of aliases."""
        whole = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        key = f"{ARTIFACTS}/{name}"
        self._storage.write(key, safetensors.torch.save(whole, metadata={"format": "pt"}))
        return self._storage.url_of(key)

    def _permit(self) -> None:
        if self._fences.overtaken(self._term):
            raise Overtaken("A later generation trains by now; this one's work is given up.")

    def _refusal(self, meta: Mapping[str, Any]) -> str | None:
        term = Term(meta["incarnation"], meta["generation"])
        return "it is of an abandoned line" if self._fences.void(term, meta["samples"]) else None

    def _skipped(self, name: str, reason: str) -> None:
        message = f"Checkpoint {name} is not used: {reason}."
        self._journal.record("warning", code="checkpoint_skipped", message=message)

    def _report(self, result: Saved | Failed) -> None:
        samples = checkpoint.samples_of(result.name)
        if isinstance(result, Saved):
            self.saved, self.save_s = samples, result.seconds
            self._journal.record("checkpoint_saved", samples=samples, name=result.name, bytes=result.bytes)
        else:
            self._journal.record("checkpoint_failed", samples=samples, message=result.message)
