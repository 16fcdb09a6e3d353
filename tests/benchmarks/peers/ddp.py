"""What one would write by hand: a DDP loop with AdamW and an EMA, of fixed size; the measure of our own loop."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from workers.recipes.classify import Classify

RHO = 0.99


class Loop:
    """One rank of it, over torch's default group."""

    def __init__(self, config: Classify.Config, batch: int, *, fused: bool = False) -> None:
        """`batch`: samples of one rank and step. `fused`: AdamW in one pass, which is not torch's default on a CPU."""
        recipe = Classify(config, seed=0)
        self.model = recipe.model()
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.ddp = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, foreach=not fused, fused=fused)
        self.images, self.labels = recipe.train_data().tensors
        self.batch = batch
        self.seen = 0
        self.orders: dict[int, Tensor] = {}

    def step(self) -> None:
        """One optimizer step."""
        indices = self.next_indices()
        loss = functional.cross_entropy(self.ddp(self.images[indices]), self.labels[indices])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        follow(self.ema, self.model, 1 - RHO)

    def next_indices(self) -> Tensor:
        """This rank's slice of the next global batch, in the order of each epoch's permutation."""
        rank, world, size = dist.get_rank(), dist.get_world_size(), len(self.labels)
        start = self.seen + rank * self.batch
        self.seen += world * self.batch
        positions = torch.arange(start, start + self.batch)
        epochs = range(start // size, (start + self.batch - 1) // size + 1)
        return torch.cat([self.order(epoch)[positions[positions // size == epoch] % size] for epoch in epochs])

    def order(self, epoch: int) -> Tensor:
        """Sample indices of an epoch, shuffled."""
        if epoch not in self.orders:
            self.orders = {key: order for key, order in self.orders.items() if key >= epoch - 1}
            self.orders[epoch] = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(epoch))
        return self.orders[epoch]


@torch.no_grad()
def follow(shadow: nn.Module, model: nn.Module, share: float) -> None:
    """Move an EMA by a share of the way to the weights; buffers are copied."""
    torch._foreach_lerp_(list(shadow.parameters()), list(model.parameters()), share)
    for average, buffer in zip(shadow.buffers(), model.buffers(), strict=True):
        average.copy_(buffer)
