"""Language modelling over bytes: a small causal transformer, on text that every node has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from workers.recipes import StepContext, networks, text
from workers.recipes.inference import evaluating

EVALUATED = 64
"""Windows of one forward pass of an evaluation."""


class Language:
    """Predict text byte by byte with a causal transformer; the EMA is an average that is evaluated beside the weights.

    The transformer: Vaswani et al. 2017, arXiv 1706.03762, as in GPT-2 (Radford et al. 2019): the norm before each part
    and learned positions. Bytes instead of words: Al-Rfou et al. 2018, arXiv 1808.04444. Text: `workers.recipes.text`.
    """

    class Config(BaseModel):
        """Settings of `language`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        text: Path | None = Field(
            None,
            description="A file or a folder, the same on all nodes; null: the modules that come with Python, of which "
            "all nodes then need the same version.",
        )
        size: int = Field(1_000_000, ge=10_000, le=1_000_000_000, description="Use at most so many bytes of the text.")
        held_out: float = Field(0.05, gt=0, lt=1, description="Share of these bytes, at their end, to evaluate on.")
        context: int = Field(128, ge=2, le=4096, description="Bytes that a sample predicts from, and predicts.")
        stride: int | None = Field(
            None, ge=1, description="From a sample's first byte to the next one's; null: context."
        )
        width: int = Field(128, ge=8, le=4096, description="Features of each position.")
        depth: int = Field(2, ge=1, le=64, description="Blocks.")
        heads: int = Field(4, ge=1, le=64, description="Of the attention in each block; width is a multiple of it.")

        @model_validator(mode="after")
        def _whole_heads(self) -> Language.Config:
            if self.width % self.heads:
                raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
            if self.stride is not None and self.stride > self.context:
                raise ValueError(f"with a stride ({self.stride}) above context ({self.context}) text would be left out")
            return self

    def __init__(self, config: Config, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._text = text.load(config.text, config.size, config.held_out)

    def model(self) -> nn.Module:
        """The transformer: bytes of shape (n, up to `context`) in, logits of shape (n, length, 256) out."""
        config = self._config
        with networks.initialized(self._seed):
            return CausalTransformer(config.context, config.width, config.depth, config.heads)

    def train_data(self) -> text.Windows:
        """Windows of the text, uint8 of shape (context + 1,)."""
        return text.Windows(self._text.train, self._config.context, self._config.stride or self._config.context)

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """Mean cross entropy of the next byte, in nats."""
        return _cross_entropy(model, batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Cross entropy of the held-out bytes, in nats and in bits a byte, and how often the likeliest one comes next.

        Each is predicted once, from those before it in its window.
        """
        with evaluating(model):
            loss, accuracy = self._held_out(model)
        return {"loss": loss, "bits_per_byte": loss / math.log(2), "accuracy": accuracy}

    def _held_out(self, model: nn.Module) -> tuple[float, float]:
        device = next(model.parameters()).device
        nats, right, count = 0.0, 0, 0
        for window in self._windows():
            shown, targets = window[:, :-1].to(device), window[:, 1:].to(device).long()
            logits = model(shown)
            nats += functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum").item()
            right += int((logits.argmax(dim=2) == targets).sum())
            count += targets.numel()
        return nats / count, right / count

    def _windows(self) -> Iterator[Tensor]:
        """The held-out bytes in batches of windows; a last, shorter window comes alone."""
        held_out, context = self._text.test, self._config.context
        whole = (len(held_out) - 1) // context
        for first in range(0, whole, EVALUATED):
            last = min(first + EVALUATED, whole)
            yield held_out[first * context : last * context + 1].unfold(0, context + 1, context)
        if whole * context + 1 < len(held_out):
            yield held_out[None, whole * context :]


def _cross_entropy(model: nn.Module, windows: Tensor) -> Tensor:
    logits = model(windows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten().long())


class CausalTransformer(nn.Module):
    """Logits of the next byte at every position, from the bytes up to it."""

    def __init__(self, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(text.VALUES, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, text.VALUES)
        self._initialize(depth)

    def forward(self, shown: Tensor) -> Tensor:
        """Bytes of any integer type, at most as many as positions."""
        features = self.bytes(shown.int()) + self.positions[: shown.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(features)))
        return logits

    def _initialize(self, depth: int) -> None:
        """As GPT-2: small weights, and smaller ones where 2 * depth branches add up."""
        nn.init.normal_(self.positions, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                branch = name.endswith((".merge", ".narrow"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if branch else 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


class _Block(nn.Module):
    """Attention to what came before, then a layer at each position; both are added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.split, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape (n, length, width)."""
        features = features + self._attend(self.attention_norm(features))
        changed: Tensor = self.narrow(functional.gelu(self.widen(self.mlp_norm(features))))
        return features + changed

    def _attend(self, features: Tensor) -> Tensor:
        parts = self.split(features).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        merged: Tensor = self.merge(seen.transpose(1, 2).flatten(2))
        return merged
