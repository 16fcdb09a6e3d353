"""The gradient of one step, summed over micro-batches and workers in DDP's communication hook, and its spread.

A shard is one micro-batch: m of the step's B samples, weight w = m/B, mean gradient g. The trainer scales its loss by
w, so plain sums over micro-batches and workers give gbar, whatever the slices. Where the noise is wanted too, the
shards' squares are summed beside it: w |g|^2 as one number, and w g^2 per coordinate where Adam's v is to be fed with
them. What is made of these sums: `api_schemas.scaling.noise`. Derived for this project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.futures import Future, collect_all
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket  # public as dist.GradBucket, which a type checker cannot see

FUSED = 2**18
"""Elements of a bucket up to which gradient and squares share one all-reduce: below, latency outweighs the copy."""

ROW = 2**12
"""Elements whose squares are summed in their own precision."""

Named = dict[Tensor, Tensor]
"""By parameter."""


def square_sum(tensors: Iterable[Tensor]) -> float:
    """Of all elements' squares. By rows: over 26 million elements at once, torch's norm in fp32 is off by 1e-3."""
    total = 0.0
    for tensor in tensors:
        flat, whole = tensor.reshape(-1), tensor.numel() // ROW * ROW
        for part in (flat[:whole].view(-1, ROW), flat[whole:].view(1, -1)):
            total += float(torch.linalg.vector_norm(part, dim=1).double().square().sum())
    return total


class GradientReducer:
    """The communication hook of one generation's DDP.

    Squares are measured in the generation's first step that has two shards, and in every `every`-th from there on. All
    workers count alike, since all began with this generation.
    """

    def __init__(
        self,
        ddp: DistributedDataParallel,
        *,
        norms: bool,
        coordinates: bool,
        summed: Callable[[Tensor], Future[list[Tensor]]],
        every: int = 1,
        check: Callable[[], None] = lambda: None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """`norms`: measure |g|^2; `coordinates`: measure g^2 too. `on_sent`: all of a step is on its way.

        `summed` starts a sum over the workers, in place. `check` is called before every bucket, and may raise: why go
        through a backward pass that is in vain?
        """
        self._check = check
        self._summed = summed
        self._on_sent = on_sent
        self._norms = norms or coordinates
        self._coordinates = coordinates
        self._every = every
        self._rest = 0  # steps before the next measurement
        self._weights: Sequence[float] = ()
        self._before: Named = {}  # the gradient's sum over the micro-batches before the last one
        self._squares: Named = {}  # the same of w g^2
        self._scratch: dict[tuple[int, int], Tensor] = {}  # by bucket and size: the layout changes after the first step
        self._reduced: list[tuple[list[Tensor], list[Tensor]]] = []  # parameters and their sums of squares
        self._parameters = [p for p in ddp.module.parameters() if p.requires_grad]
        self.measuring = False
        self.square_norm = 0.0  # this worker's sum of w |g|^2, after its backward passes
        self.shards = 0  # of the last measurement, on all workers together
        self.spread: Named = {}  # of the last measurement: Q = sum w g^2 - gbar^2, not below 0
        ddp.register_comm_hook(None, lambda state, bucket: self._send(bucket))  # noqa: ARG005 (torch's names)

    def begin(self, weights: Sequence[float], shards: int) -> None:
        """A step of these micro-batches here; `shards` of them hold samples, on all workers together."""
        self._weights = weights
        self._before, self._squares, self._reduced = {}, {}, []
        self.square_norm = 0.0
        self._rest = max(0, self._rest - 1)
        self.measuring = self._norms and shards >= 2 and self._rest == 0
        if self.measuring:
            self._rest, self.shards = self._every, shards

    def accumulated(self, position: int) -> None:
        """A micro-batch that is not the step's last was added to the gradients."""
        if not self.measuring:
            return
        having = [p for p in self._parameters if p.grad is not None]
        gradients = [p.grad for p in having if p.grad is not None]
        parts = [g - self._before[p] if p in self._before else g for p, g in zip(having, gradients, strict=True)]
        if self._coordinates:
            squares = torch._foreach_mul(parts, parts)
            torch._foreach_div_(squares, self._weights[position])
            for parameter, square in zip(having, squares, strict=True):
                self._squares[parameter] = self._squares[parameter] + square if parameter in self._squares else square
        else:
            self.square_norm += square_sum(parts) / self._weights[position]
        self._before = {p: g.clone() for p, g in zip(having, gradients, strict=True)}

    def settle(self) -> None:
        """Once the gradients are those of all workers: what is left of their squares is the spread."""
        for parameters, squares in self._reduced:
            means = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_addcmul_(squares, means, means, value=-1.0)
            torch._foreach_clamp_min_(squares, 0.0)
            self.spread.update(zip(parameters, squares, strict=True))

    def _send(self, bucket: GradBucket) -> Future[Tensor]:
        self._check()
        future = self._reduce(bucket)
        if bucket.is_last():
            self._on_sent()
        return future

    def _reduce(self, bucket: GradBucket) -> Future[Tensor]:
        """Sum a bucket over the workers; with its squares where they are wanted."""
        gradient = bucket.buffer()
        if not (self.measuring and self._coordinates):
            self.square_norm += self._square_norm(bucket) if self.measuring else 0.0
            return self._summed(gradient).then(lambda done: done.value()[0])
        squares = self._room(bucket)
        self._square(bucket, squares)
        self.square_norm += float(squares.sum())
        self._reduced.append((bucket.parameters(), _views(bucket, squares)))
        if gradient.numel() <= FUSED:
            return self._summed_together(gradient, self._scratch[bucket.index(), gradient.numel()])
        return self._summed_both(gradient, squares)

    def _summed_together(self, gradient: Tensor, pair: Tensor) -> Future[Tensor]:
        """One all-reduce for [gradient, squares]."""
        size = gradient.numel()
        pair[:size].copy_(gradient)

        def unpack(done: Future[list[Tensor]]) -> Tensor:
            done.value()
            return gradient.copy_(pair[:size])

        return self._summed(pair).then(unpack)

    def _summed_both(self, gradient: Tensor, squares: Tensor) -> Future[Tensor]:
        """Two all-reduces, in flight together."""

        def take(done: Future[list[Future[list[Tensor]]]]) -> Tensor:
            for each in done.value():
                each.value()
            return gradient

        return collect_all([self._summed(gradient), self._summed(squares)]).then(take)

    def _room(self, bucket: GradBucket) -> Tensor:
        """Where the bucket's squares go: the second half of a pair where both travel together."""
        size = bucket.buffer().numel()
        key = (bucket.index(), size)
        if key not in self._scratch:
            self._scratch[key] = bucket.buffer().new_empty(2 * size if size <= FUSED else size)
        return self._scratch[key][-size:]

    def _square_norm(self, bucket: GradBucket) -> float:
        """w |g|^2 of the step's last micro-batch, in this bucket."""
        weight = self._weights[-1]
        own = [gradient for _, gradient in self._own(bucket)] if self._before else [bucket.buffer()]
        return square_sum(own) / weight if weight else 0.0

    def _square(self, bucket: GradBucket, squares: Tensor) -> None:
        """Write this worker's sum of w g^2 over the bucket's coordinates."""
        weight = self._weights[-1]
        if not weight:
            squares.zero_()
        elif not self._before:
            _divided_square(bucket.buffer(), weight, out=squares)
        else:
            for (parameter, own), square in zip(self._own(bucket), _views(bucket, squares), strict=True):
                _divided_square(own, weight, out=square)
                if parameter in self._squares:
                    square.add_(self._squares[parameter])

    def _own(self, bucket: GradBucket) -> Iterator[tuple[Tensor, Tensor]]:
        """By parameter, what the step's last micro-batch added; one that it alone uses was not there before."""
        for parameter, gradient in zip(bucket.parameters(), _views(bucket, bucket.buffer()), strict=True):
            yield parameter, gradient - self._before[parameter] if parameter in self._before else gradient


def _divided_square(tensor: Tensor, divisor: float, *, out: Tensor) -> None:
    """In one pass over memory."""
    torch.addcmul(tensor.new_zeros(()), tensor, tensor, value=1 / divisor, out=out)


def _views(bucket: GradBucket, flat: Tensor) -> list[Tensor]:
    """Views of a tensor of the bucket's size, one for each parameter, laid out as DDP fills the bucket.

    That is as the parameter itself lies, if it is dense (channels last, say); `bucket.gradients()` ignores it.
    """
    start = flat.storage_offset() - bucket.buffer().storage_offset()
    return [
        flat.as_strided(parameter.shape, _strides(parameter), start + gradient.storage_offset())
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True)
    ]


def _strides(parameter: Tensor) -> tuple[int, ...]:
    extent = 1 + sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
    return parameter.stride() if extent == parameter.numel() else parameter.new_empty(parameter.shape).stride()
