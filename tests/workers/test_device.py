"""Precision on any machine; the GPU where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from api_schemas.errors import InvalidRequest
from tests.workers.peers import Peers, gathered
from tests.workers.stage import spec
from workers.device import Device
from workers.mesh import Mesh, MeshBroken

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and PyTorch sees none here")


class Pair(NamedTuple):
    image: Tensor
    label: int


def test_bf16_runs_the_forward_pass_alone_in_bf16() -> None:
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    with Device(bf16=True).autocast():
        y = model(x)
    y.float().sum().backward()
    assert y.dtype is torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_fp32_changes_nothing() -> None:
    with Device().autocast():
        assert nn.Linear(4, 2)(torch.randn(3, 4)).dtype is torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch sees a GPU here")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with_gpu = spec((1, 1)).model_copy(update={"resources": spec((1, 1)).resources.model_copy(update={"gpu": 1})})
    with pytest.raises(InvalidRequest) as refused:
        Device.of(with_gpu)
    assert refused.value.reason == "no_gpu"


@gpu
@pytest.mark.parametrize(
    "batch", [torch.ones(2), [torch.ones(2), "a"], {"x": (torch.ones(2), 3)}, Pair(torch.ones(2), 1)]
)
def test_a_batch_of_any_shape_goes_to_the_gpu(batch: Any) -> None:
    device = Device("cuda")
    moved = device.put(device.pin(batch))
    tensors = [part for part in torch.utils._pytree.tree_leaves(moved) if isinstance(part, Tensor)]
    assert tensors
    assert all(tensor.is_cuda for tensor in tensors)
    assert type(moved) is type(batch)


@gpu
def test_one_member_trains_with_nccl_beside_gloo() -> None:
    with gathered() as peers:
        _train_twice(peers)


def _train_twice(peers: Peers) -> None:
    for _ in range(2):
        mesh = Mesh(*peers.rendezvous(1), gpu=True)
        mesh.join()
        assert mesh.vote(False, 2.0) == (False, [2.0])
        ones = torch.ones(3, device="cuda")
        mesh.all_reduce(ones)
        model = nn.parallel.DistributedDataParallel(nn.Linear(3, 1).cuda(), init_sync=False, broadcast_buffers=False)
        model(ones).sum().backward()
        Device("cuda").settle()
        del model
        mesh.leave()


@gpu
def test_a_severed_member_is_free_though_its_gpu_waits() -> None:
    """What is queued on the GPU when the group is severed leaves the process alive, and the group of no use."""
    with gathered() as peers:
        mesh = Mesh(*peers.rendezvous(1), gpu=True)
        mesh.join()
        mesh.all_reduce(torch.ones(3, device="cuda"))
        mesh.sever()
        with pytest.raises(MeshBroken):
            mesh.all_reduce(torch.ones(3, device="cuda"))
        Device("cuda").settle()
        mesh.leave()
