"""The transformer classifier that the families share (paper, figure 1): stem, prefix, positions, blocks, norm, pool, head.

A family says only how an image becomes tokens (``make_stem``). Step names in the trace equal the modules' names
(``blocks.3`` is ``block03``), so that a table can put parameters beside shapes.

Odd: weights are drawn by ``initialise`` and not in constructors of layers; a model built on the meta device costs nothing.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import Generator, Tensor, nn

from tesela.layers.attention.attention import Attention
from tesela.layers.attention.cpu_bf16 import stream
from tesela.layers.attention.grid_attention import PlacedAttention
from tesela.layers.attention.kernels import Switchable
from tesela.layers.block import Block
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.mlp import Mlp, SwiGlu
from tesela.layers.patch_dropout import PatchDropout
from tesela.layers.pool import AttentionPool, ClassMeanPool, ClassPool, MeanPool, SequencePool
from tesela.layers.position.embedding import make_positions
from tesela.layers.prefix import PrefixTokens
from tesela.layers.token_layout import Layout
from tesela.layers.trace import OFF, Trace
from tesela.models.encoder.config import EncoderConfig
from tesela.models.heads import Head
from tesela.models.protocol import Features

C = TypeVar("C", bound=EncoderConfig)


@runtime_checkable
class Movable(Protocol):
    """A part with tables of one grid."""

    def move_to(self, grid: Grid) -> None:
        """Make the tables of another grid its own."""


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
            config.width,
            class_token=config.pool in ("class", "class_mean"),
            distillation_token=config.distillation,
            registers=config.registers,
        )
        own = config.position_at == "block"
        self.positions = (
            nn.ModuleList(_positions(config) for _ in range(config.depth)) if own else _positions(config)
        )
        self.patch_dropout = PatchDropout(config.patch_dropout, prefix=config.special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config, index) for index in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.pool = _pool(config)
        self.pooled_norm = (
            nn.LayerNorm(config.pooled_width, eps=config.norm_eps) if config.pooled_norm else nn.Identity()
        )
        self.head = self.make_head(config, num_classes)

    @abstractmethod
    def make_stem(self, config: C) -> nn.Module:
        """The module that turns images into tokens."""

    def make_head(self, config: C, num_classes: int) -> nn.Module:
        """The module that turns the pooled vector into logits; a family may have another."""
        hidden = (config.head_width or config.width) if config.head == "mlp" else None
        return Head(config.pooled_width, num_classes, hidden=hidden)

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
        tokens, layout = self._embedded(images, trace)
        for index, block in enumerate(self.blocks):
            tokens = block(
                self._with_positions(tokens, index, layout),
                layout=self._told(layout),
                trace=trace.inside(f"block{index:02d}"),
            )
        tokens = trace("norm", self.norm(tokens))
        pooled = self.pool(tokens, self.config.prefix, trace=trace.inside("pool"))
        if self.config.pooled_norm:
            pooled = trace("pooled_norm", self.pooled_norm(pooled))
        return Features(tokens=tokens, pooled=pooled, grid=layout.grid, prefix=self.config.prefix)

    def _pooled(self, images: Tensor) -> Tensor:
        """What ``features`` gives as pooled, without computing what it does not need."""
        tokens, layout = self._embedded(images, OFF)
        tokens = stream(tokens, kernel=self.kernel)
        last, read = len(self.blocks) - 1, self.config.special_tokens if self.config.pool == "class" else None
        for index, block in enumerate(self.blocks):
            first = read if index == last else None
            tokens = block(
                self._with_positions(tokens, index, layout), first=first, layout=self._told(layout)
            )
        pooled: Tensor = self.pooled_norm(self.pool(self.norm(tokens), self.config.prefix))
        return pooled

    def _embedded(self, images: Tensor, trace: Trace) -> tuple[Tensor, Layout]:
        """The tokens that enter the first block, with its positions, and where they stand."""
        grid = self.grid((images.shape[2], images.shape[3]))
        tokens = trace("patches", self.patches(images, trace=trace.inside("patches")))
        tokens = trace("prefix", self.prefix.with_special(tokens))
        first = self.positions[0] if isinstance(self.positions, nn.ModuleList) else self.positions
        tokens = first(tokens, grid)
        kept = self.patch_dropout.choose(tokens)
        tokens = trace("positions", self.dropout(self.patch_dropout.take(tokens, kept)))
        return self.prefix.with_registers(tokens), Layout(grid, self.config.prefix, kept)

    def _with_positions(self, tokens: Tensor, index: int, layout: Layout) -> Tensor:
        """The tokens as block ``index`` gets them; the first one's positions are there already."""
        if index == 0 or self.config.position_at == "input":
            return tokens
        positions = self.positions[index] if isinstance(self.positions, nn.ModuleList) else self.positions
        placed: Tensor = positions(tokens, layout.grid, kept=layout.kept)
        return placed.to(tokens.dtype)

    def _told(self, layout: Layout) -> Layout | None:
        """The layout for attentions that ask for it."""
        return layout if self.config.placed else None

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of tokens of an image of (height, width)."""
        return self.config.grid(image_size)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make another size the model's own, as for fine-tuning at a higher resolution (paper, section 3.2).

        Raises:
            ConfigError: the image does not fit.
        """
        self.config = dataclasses.replace(self.config, image_size=image_size)
        for module in self.modules():
            if isinstance(module, Movable):
                module.move_to(self.config.grid())

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by one linear layer of ``num_classes``, all zero (paper, section 3.2)."""
        old = next(self.head.parameters())
        self.config = dataclasses.replace(self.config, head="linear", head_width=0)
        self.head = self.make_head(self.config, num_classes).to(device=old.device, dtype=old.dtype)
        initialise(self.head)
        self.num_classes = num_classes

    def no_decay(self) -> set[str]:
        """Biases, norms, tokens and positions: all but the weights of dense layers and convolutions."""
        tables = ("prefix.", "positions.", "pool.probe")
        named = self.named_parameters()
        return {
            name
            for name, parameter in named
            if parameter.ndim < 2 or name.startswith(tables) or ".relative." in name
        }

    def layer_groups(self) -> list[list[str]]:
        """The stem with prefix and positions, each block with positions of its own, and norm, pool and head together."""
        groups: list[list[str]] = [[] for _ in range(len(self.blocks) + 2)]
        own = {"blocks", "positions"} if self.config.position_at == "block" else {"blocks"}
        for name, _ in self.named_parameters():
            first, second = name.split(".")[:2]
            index = (
                int(second) + 1 if first in own else 0 if first in ("patches", "prefix", "positions") else -1
            )
            groups[index].append(name)
        return groups


def _positions(config: EncoderConfig) -> nn.Module:
    """What is added to the tokens at one place."""
    prefix = config.special_tokens if config.prefix_positions else 0
    return make_positions(
        config.position, grid=config.grid(), width=config.width, prefix=prefix, mode=config.position_mode
    )


def _block(config: EncoderConfig, index: int) -> Block:
    """Block ``index``, its stochastic depth growing linearly from 0 at the first block."""
    rate = config.drop_path * index / max(1, config.depth - 1)
    return Block(
        _attention(config, index),
        _mlp(config),
        width=config.width,
        norm=config.norm,
        norm_eps=config.norm_eps,
        drop_path=rate,
        layer_scale=config.layer_scale,
    )


def _attention(config: EncoderConfig, index: int) -> Attention:
    options: dict[str, Any] = {
        "wide": config.attention == "wide",
        "qkv_bias": config.qkv_bias,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }
    if not config.placed:
        return Attention(config.width, config.heads, **options)
    kind = {"relative": config.relative(index), "rotary": config.position == "rotary"}
    return PlacedAttention(
        config.width, config.heads, cells=config.cells(index), grid=config.grid(), **kind, **options
    )


def _mlp(config: EncoderConfig) -> Mlp | SwiGlu:
    if config.mlp == "swiglu":
        return SwiGlu(config.width, config.mlp_width, dropout=config.dropout)
    return Mlp(config.width, config.mlp_width, activation=config.activation, dropout=config.dropout)


def _pool(config: EncoderConfig) -> nn.Module:
    if config.pool == "attention":
        return AttentionPool(
            config.width,
            config.heads,
            hidden=config.mlp_width,
            activation=config.activation,
            norm_eps=config.norm_eps,
        )
    simple = {
        "class": ClassPool(config.special_tokens),
        "mean": MeanPool(),
        "class_mean": ClassMeanPool(),
        "sequence": SequencePool(config.width),
    }
    return simple[config.pool]
