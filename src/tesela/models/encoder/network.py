"""The transformer classifier that the families share (paper, figure 1): stem, prefix, positions, blocks, norm, pool, head.

A family says only how an image becomes tokens (``make_stem``). Step names in the trace equal the modules' names
(``blocks.3`` is ``block03``), so that a table can put parameters beside shapes.

Odd: weights are drawn by ``initialise`` and not in constructors of layers; a model built on the meta device costs nothing.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, Generic, TypeVar

from torch import Generator, Tensor, nn

from tesela.layers.attention import Attention
from tesela.layers.block import Block
from tesela.layers.conv import ConvTokenizer
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.kernels import Switchable
from tesela.layers.lean import stream
from tesela.layers.mlp import Mlp
from tesela.layers.patch import PatchEmbedding
from tesela.layers.patch_dropout import PatchDropout
from tesela.layers.pool import AttentionPool, ClassPool, MeanPool, SequencePool
from tesela.layers.position import LearnedPositions, make_positions
from tesela.layers.prefix import PrefixTokens
from tesela.layers.trace import OFF, Trace
from tesela.models.encoder.config import EncoderConfig
from tesela.models.heads import Head
from tesela.models.protocol import Features

C = TypeVar("C", bound=EncoderConfig)


class Encoder(Switchable, nn.Module, Generic[C]):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        config: what it is.
        num_classes: K.

    Attributes:
        info: the bundle it was loaded from, or None.
    """

    def __init__(self, config: C, *, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.info: Any = None
        self.patches = self.make_stem(config)
        self.prefix = PrefixTokens(
            config.width, class_token=config.pool == "class", distillation_token=config.distillation, registers=config.registers
        )
        self.positions = make_positions(
            config.position,
            grid=config.grid(),
            width=config.width,
            prefix=config.special_tokens if config.prefix_positions else 0,
            mode=config.position_mode,
        )
        self.patch_dropout = PatchDropout(config.patch_dropout, prefix=config.special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config, index) for index in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.pool = _pool(config)
        hidden = (config.head_width or config.width) if config.head == "mlp" else None
        self.head = Head(config.width, num_classes, hidden=hidden)

    @abstractmethod
    def make_stem(self, config: C) -> PatchEmbedding | ConvTokenizer:
        """The module that turns images into tokens."""

    def initialise(self, generator: Generator | None = None) -> None:
        """Draw all weights anew."""
        initialise(self, generator)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K) of images (B, C, H, W).

        Without a trace, the last block computes only the tokens that the pool reads: with a class token one instead of all.
        """
        pooled = self.features(images, trace=trace).pooled if trace is not OFF else self._pooled(images)
        logits: Tensor = self.head(pooled, trace=trace.inside("head"))
        return logits

    def features(self, images: Tensor, *, trace: Trace = OFF) -> Features:
        """Tokens and pooled vector of images (B, C, H, W)."""
        grid = self.grid((images.shape[2], images.shape[3]))
        tokens = self._embedded(images, grid, trace)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, trace=trace.inside(f"block{index:02d}"))
        tokens = trace("norm", self.norm(tokens))
        pooled = self.pool(tokens, self.config.prefix, trace=trace.inside("pool"))
        return Features(tokens=tokens, pooled=pooled, grid=grid, prefix=self.config.prefix)

    def _pooled(self, images: Tensor) -> Tensor:
        """What ``features`` gives as pooled, without computing what it does not need."""
        tokens = self._embedded(images, self.grid((images.shape[2], images.shape[3])), OFF)
        tokens = stream(tokens, kernel=self.kernel)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        tokens = self.blocks[-1](tokens, first=self.config.special_tokens if self.config.pool == "class" else None)
        pooled: Tensor = self.pool(self.norm(tokens), self.config.prefix)
        return pooled

    def _embedded(self, images: Tensor, grid: Grid, trace: Trace) -> Tensor:
        """The tokens that enter the first block."""
        tokens = trace("patches", self.patches(images))
        tokens = trace("prefix", self.prefix.with_special(tokens))
        tokens = trace("positions", self.dropout(self.patch_dropout(self.positions(tokens, grid))))
        return self.prefix.with_registers(tokens)

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of tokens of an image of (height, width)."""
        return self.config.grid(image_size)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make another size the model's own, as for fine-tuning at a higher resolution (paper, section 3.2).

        Raises:
            ConfigError: the image does not fit.
        """
        self.config = dataclasses.replace(self.config, image_size=image_size)
        if isinstance(self.positions, LearnedPositions):
            self.positions.move_to(self.config.grid())

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by one linear layer of ``num_classes``, all zero (paper, section 3.2)."""
        old = self.head.linear.weight
        self.head = Head(self.config.width, num_classes).to(device=old.device, dtype=old.dtype)
        self.head.reset()
        self.config = dataclasses.replace(self.config, head="linear", head_width=0)
        self.num_classes = num_classes

    def no_decay(self) -> set[str]:
        """Biases, norms, tokens and positions: all but the weights of dense layers and convolutions."""
        tables = ("prefix.", "positions.", "pool.probe")
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2 or name.startswith(tables)}

    def layer_groups(self) -> list[list[str]]:
        """The stem with prefix and positions, each block, and norm, pool and head together."""
        groups: list[list[str]] = [[] for _ in range(len(self.blocks) + 2)]
        for name, _ in self.named_parameters():
            first, second = name.split(".")[:2]
            index = 0 if first in ("patches", "prefix", "positions") else int(second) + 1 if first == "blocks" else -1
            groups[index].append(name)
        return groups


def _block(config: EncoderConfig, index: int) -> Block:
    """Block ``index``, its stochastic depth growing linearly from 0 at the first block."""
    attention = Attention(
        config.width,
        config.heads,
        wide=config.attention == "wide",
        qkv_bias=config.qkv_bias,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    mlp = Mlp(config.width, config.mlp_width, activation=config.activation, dropout=config.dropout)
    rate = config.drop_path * index / max(1, config.depth - 1)
    return Block(attention, mlp, width=config.width, norm=config.norm, norm_eps=config.norm_eps, drop_path=rate)


def _pool(config: EncoderConfig) -> nn.Module:
    if config.pool == "attention":
        return AttentionPool(config.width, config.heads, hidden=config.mlp_width, activation=config.activation, norm_eps=config.norm_eps)
    simple = {"class": ClassPool(config.special_tokens), "mean": MeanPool(), "sequence": SequencePool(config.width)}
    return simple[config.pool]
