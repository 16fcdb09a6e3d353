"""Trainings that were done already, so that a long sweep can be cut and go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch

from api_schemas.jobs import JobSpec
from tests.benchmarks.runs.settings import Part
from tests.benchmarks.runs.training import Trained


class Shelf:
    """A folder with a file a run; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._taken: dict[str, Trained] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str, spec: JobSpec, parts: Sequence[Part], make: Callable[[], Trained]) -> Trained:
        """The run of that name, made where it is not there, or is another one by now."""
        if name not in self._taken:
            self._taken[name] = self._load(name, spec, parts) or self._keep(name, spec, parts, make())
        return self._taken[name]

    def _load(self, name: str, spec: JobSpec, parts: Sequence[Part]) -> Trained | None:
        file = self._file(name)
        if file is None or not file.exists():
            return None
        with safetensors.safe_open(str(file), framework="pt") as stored:
            about = stored.metadata()
            if about["key"] != _key(spec, parts):
                return None
            path = {int(samples): stored.get_tensor(samples) for samples in stored.keys()}  # noqa: SIM118 (no dict)
        evaluations = {int(at): scores for at, scores in json.loads(about["evaluations"]).items()}
        return Trained(path, evaluations, json.loads(about["resizes"]))

    def _keep(self, name: str, spec: JobSpec, parts: Sequence[Part], run: Trained) -> Trained:
        file = self._file(name)
        if file is not None:
            about = {"key": _key(spec, parts), "evaluations": json.dumps(run.evaluations)}
            about["resizes"] = json.dumps(run.resizes, default=str)
            aside = file.with_suffix(".part")
            safetensors.torch.save_file({str(at): weights for at, weights in run.path.items()}, aside, metadata=about)
            aside.replace(file)
        return run

    def _file(self, name: str) -> Path | None:
        return self._folder / f"{name}.safetensors" if self._folder else None


def _key(spec: JobSpec, parts: Sequence[Part]) -> str:
    return hashlib.sha256(f"{spec.model_dump_json()}{list(parts)}".encode()).hexdigest()
