"""A run of Ray Train, by its public API alone: the same trainer under `TorchTrainer`.

fit       in a driver's process: has Ray Train start groups of workers, and start them anew where some die
train     in each worker's process: a generation, from `enter` to a checkpoint or the end of the budget
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from api_schemas.exchange import NAMESPACE, Launch, controller_name
from workers import checkpoint, memory
from workers.archive import Archive
from workers.attendance import Attendance
from workers.checkpoint import CheckpointDamaged, Snapshot
from workers.checkpoint_writer import Failed, Saved
from workers.group import Group
from workers.losses import cause_of_death
from workers.membership import Plan
from workers.packages import own_modules
from workers.restarts import Reply
from workers.state import State
from workers.status import Phase, Status
from workers.storage import Storage, StorageError
from workers.trainer import Trainer

RESIZE_S = 10.0
"""How often Ray Train looks whether there is room for more workers, where it began with fewer than it may have."""
REASON_LENGTH = 300


def fit(launch_json: str, fewest: int, most: int) -> None:
    """A whole run, on `fewest` to `most` workers. Raises what `TorchTrainer.fit` raises."""
    launch = Launch.model_validate_json(launch_json)
    resources = launch.spec.resources
    trainer = ray.train.torch.TorchTrainer(
        train,
        train_loop_config={"launch": launch_json},
        torch_config=ray.train.torch.TorchConfig(backend="cpu:gloo,cuda:nccl" if resources.gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # typed as that of version 1
            num_workers=(fewest, most),  # type: ignore[arg-type]
            use_gpu=bool(resources.gpu),
            resources_per_worker={"CPU": resources.cpu, **({"GPU": resources.gpu} if resources.gpu else {})},
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=ray.train.RunConfig(
            name=checkpoint.FOLDER,
            **_storage(launch.storage),
            failure_config=ray.train.FailureConfig(max_failures=-1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=launch.spec.checkpoint.keep),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=[_Losses(launch.job)],  # type: ignore[list-item]
            worker_runtime_env=own_modules(launch).get("runtime_env"),
        ),
    )
    trainer.fit()


class _Losses(ray.train.UserCallback):
    """Tells the job's controller of workers that Ray Train has lost. Lives in Ray Train's own controller."""

    def __init__(self, job: str) -> None:
        self._job = job

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ARG002
        """Those who died; where none did, those who raised."""
        died = {rank: error for rank, error in worker_exceptions.items() if _is_death(error)}
        reasons = {rank: cause_of_death(error) for rank, error in died.items()}
        reasons = reasons or {rank: _last_line(error) for rank, error in worker_exceptions.items()}
        ray.get(_controller(self._job).lose.remote(reasons))


def _is_death(error: Exception) -> bool:
    return "HealthCheck" in type(error).__name__


def _last_line(error: Exception) -> str:
    """The last line that says something: before it Ray prints where it came from."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}..."


def _storage(url: str) -> dict[str, Any]:
    """Where Ray Train puts checkpoints: beside what else the job stores, reached as that is."""
    if "://" not in url:
        return {"storage_path": url}
    filesystem, path = fsspec.core.url_to_fs(url)
    return {"storage_path": path, "storage_filesystem": pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))}


def _controller(job: str) -> Any:
    return ray.get_actor(controller_name(job), NAMESPACE)


def train(config: Mapping[str, str]) -> None:
    """One worker of one group: what `TorchTrainer` calls in its process."""
    memory.keep()
    launch = Launch.model_validate_json(config["launch"])
    context = ray.train.get_context()
    group = Group(rank=context.get_world_rank(), world=context.get_world_size())
    torch.set_num_threads(max(1, int(launch.spec.resources.cpu)))
    controller = _controller(launch.job)  # valid for all its lives
    plan = _enter(controller, group)
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    node = ray.get_runtime_context().get_node_id()
    with Attendance(launch, plan, group.rank, partial(_tell, controller), host=host, node=node) as attendance:
        archive = _ReportedArchive.of(launch, attendance.journal)
        trainer = Trainer.of(launch, attendance.journal, archive)
        attendance.trainer = trainer
        trainer.enter(group, plan)
        attendance.phase = Phase.TRAINING
        if trainer.run(group, attendance.is_to_leave):
            attendance.phase = Phase.DONE
        else:
            trainer.conclude(group)
            attendance.phase = Phase.LEFT


def _enter(controller: Any, group: Group) -> Plan:
    plan: list[Any] = [ray.get(controller.enter.remote(group.world)) if group.rank == 0 else None]
    dist.broadcast_object_list(plan, src=0)
    made: Plan = plan[0]
    return made


def _tell(controller: Any, worker: str, status: Status) -> Reply | None:
    try:
        reply: Reply = ray.get(controller.hear.remote(worker, status))
    except ray.exceptions.RayError:  # it is being started again
        return None
    return reply


class _ReportedArchive(Archive):
    """Checkpoints of the same format in the same place, which Ray Train is told of and tells of."""

    def save(self, state: State | None, *, last: bool) -> None:  # noqa: ARG002  Ray Train knows no last one
        """Report a checkpoint, by all members together; training waits until it is stored, or has failed."""
        stored = None if state is None else self._store(state)
        if stored is None:
            ray.train.report({})
            return
        name, place = stored
        uploaded = ray.train.CheckpointUploadMode.NO_UPLOAD
        samples = {"samples": checkpoint.samples_of(name)}
        ray.train.report(samples, checkpoint=place, checkpoint_dir_name=name, checkpoint_upload_mode=uploaded)

    def _store(self, state: State) -> tuple[str, ray.train.Checkpoint] | None:
        """Its name and where it lies; None: it failed, and training goes on."""
        name, began = checkpoint.checkpoint_name(state.meta["samples"]), time.monotonic()
        try:
            size = checkpoint.save(self._storage, name, self._snapshot(state), self._permit)
        except StorageError as error:
            self._report(Failed(name, str(error)))
            return None
        self._report(Saved(name, size, time.monotonic() - began))
        root = _storage(self._storage.url)
        path = f"{root['storage_path']}/{checkpoint.FOLDER}/{name}"
        return name, ray.train.Checkpoint(path, root.get("storage_filesystem"))

    def _newest(self) -> Snapshot | None:
        """The newest that is whole."""
        newest = ray.train.get_checkpoint()
        reported = [each.checkpoint for each in ray.train.get_all_reported_checkpoints()] if newest else []
        for found in [newest, *reversed(reported)] if newest else []:
            try:
                return _read(found)
            except CheckpointDamaged as error:
                self._skipped(Path(found.path).name, str(error))
        return None


def _read(found: ray.train.Checkpoint) -> Snapshot:
    """Raises CheckpointDamaged."""
    name = Path(found.path).name
    with found.as_directory() as folder, tempfile.TemporaryDirectory() as root:
        place = Path(root) / checkpoint.FOLDER
        place.mkdir()
        (place / name).symlink_to(folder)
        return checkpoint.load(Storage(root), name)
