"""Transformer encoder shared by the families (paper, figure 1).

Stem, prefix, positions, blocks, norm.

A family says only how an image becomes tokens (``make_stem``). Step names in the trace equal the modules'
names (``blocks.3`` is ``block03``), so that a table can put parameters beside shapes.

Odd: weights are initialised by ``initialise`` and not in constructors of layers; on the meta device a
model costs nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from tesela.layers.attention.attention import Attention
from tesela.layers.attention.cpu_bf16 import residual_stream
from tesela.layers.attention.grid_attention import GridAttention
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.block import Block
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.mlp import Mlp, SwiGlu
from tesela.layers.norm import BatchNorm, make_token_norm
from tesela.layers.patch_dropout import PatchDropout
from tesela.layers.pool import AttentionPool, ClassMeanPool, ClassPool, MeanPool, SequencePool
from tesela.layers.position.embedding import make_positions
from tesela.layers.position.rotary import Rotation
from tesela.layers.prefix import PrefixTokens
from tesela.layers.token_layout import TokenLayout
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.encoder.config import EncoderConfig
from tesela.models.heads import Head

_C = TypeVar("_C", bound=EncoderConfig)
#: Modules before the first block.
EMBEDDING = ("input_norm", "patches", "embedded_norm", "prefix", "positions")


@runtime_checkable
class Movable(Protocol):
    """A part with tables of one grid."""

    def move_to(self, grid: Grid) -> None:
        """Make the tables of another grid its own."""


class Encoder(HasKernel, Backbone[_C]):
    """Images (B, C, H, W) to tokens (B, prefix + n, D).

    Args:
        config: the network's configuration.
    """

    def __init__(self, config: _C) -> None:
        super().__init__(config)
        self.pre_norm, self.needs_grid = config.norm == "pre", config.needs_grid
        self.input_norm = BatchNorm(config.channels) if config.input_norm == "batch" else None
        self.patches = self.make_stem(config)
        self.embedded_norm = nn.Identity() if config.embedded_norm == "none" else self._norm(config.width)
        self.prefix = PrefixTokens(
            config.width,
            class_tokens=config.class_tokens if config.pool in ("class", "class_mean") else 0,
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
        self.norm = self._norm(config.width) if config.final_norm else nn.Identity()

    def _norm(self, width: int) -> nn.Module:
        return make_token_norm(self.config.norm_kind, width, eps=self.config.norm_eps)

    @abstractmethod
    def make_stem(self, config: _C) -> nn.Module:
        """The module that turns images into tokens."""

    def make_pool(self) -> nn.Module:
        """What the configuration's ``pool`` names."""
        return _pool(self.config)

    def make_pooled_norm(self) -> nn.Module | None:
        """A norm, if the configuration asks for one."""
        return self._norm(self.config.pooled_width) if self.config.pooled_norm else None

    def make_head(self, num_classes: int) -> nn.Module:
        """Linear, or an MLP for pre-training; a family may have another."""
        config = self.config
        hidden = (config.head_width or config.width) if config.head == "mlp" else None
        return Head(config.pooled_width, num_classes, hidden=hidden)

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
        corrupt: Callable[[Tensor], Tensor] | None = None,
        kept: Tensor | None = None,
    ) -> Features:
        """Tokens of images (B, C, H, W); the last block computes only the ``first``, if given.

        Tokens of earlier blocks that are asked for pass through the last norm as well, as DINOv2 has it. For
        pre-training, ``corrupt`` changes the patches' embeddings (B, n, D) before positions are added, and
        only the patches ``kept``, (B, m) ascending numbers in raster order, enter the blocks.
        """
        tokens, layout = self._embedded(images, trace, corrupt=corrupt, kept=kept)
        stages: list[Tensor] = []
        if trace is OFF:
            tokens = residual_stream(tokens, kernel=self.kernel)
        for index, block in enumerate(self.blocks):
            tokens = block(
                self._with_positions(tokens, index, layout),
                first=first if index == len(self.blocks) - 1 else None,
                layout=self._layout_if_needed(layout),
                trace=trace.inside(f"block{index:02d}"),
            )
            if index in taps:
                stages.append(on_grid(self.norm(tokens)[:, self.config.prefix :], layout.grid))
        tokens = trace("norm", self.norm(tokens))
        return Features(tokens=tokens, grid=layout.grid, prefix=self.config.prefix, stages=tuple(stages))

    def embedded(self, images: Tensor) -> Tensor:
        """The tokens (B, prefix + n, D) that enter the first block."""
        return self._embedded(images, OFF, corrupt=None, kept=None)[0]

    def _embedded(
        self,
        images: Tensor,
        trace: Trace,
        *,
        corrupt: Callable[[Tensor], Tensor] | None,
        kept: Tensor | None,
    ) -> tuple[Tensor, TokenLayout]:
        """The tokens that enter the first block, with its positions, and where they stand."""
        grid = self.grid((images.shape[2], images.shape[3]))
        if self.input_norm is not None:
            images = trace("input_norm", self.input_norm(images))
        tokens = trace("patches", self.patches(images, trace=trace.inside("patches")))
        if self.config.embedded_norm == "patches":
            tokens = trace("embedded_norm", self.embedded_norm(tokens))
        tokens = tokens if corrupt is None else corrupt(tokens)
        tokens = trace("prefix", self.prefix.with_special(tokens))
        first = self.positions[0] if isinstance(self.positions, nn.ModuleList) else self.positions
        tokens = first(tokens, grid)
        kept = self.patch_dropout.choose(tokens) if kept is None else kept
        tokens = trace("positions", self.dropout(self.patch_dropout.take(tokens, kept)))
        tokens = self.prefix.with_registers(tokens)
        if self.config.embedded_norm == "tokens":
            tokens = trace("embedded_norm", self.embedded_norm(tokens))
        return tokens, TokenLayout(grid, self.config.prefix, kept)

    def _with_positions(self, tokens: Tensor, index: int, layout: TokenLayout) -> Tensor:
        """The tokens as block ``index`` gets them; the first one's positions are there already."""
        if index == 0 or self.config.position_at == "input":
            return tokens
        positions = self.positions[index] if isinstance(self.positions, nn.ModuleList) else self.positions
        placed: Tensor = positions(tokens, layout.grid, kept=layout.kept)
        return placed.to(tokens.dtype)

    def _layout_if_needed(self, layout: TokenLayout) -> TokenLayout | None:
        """The layout for attentions that ask for it."""
        return layout if self.config.needs_grid else None

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make another size the backbone's own; tables of positions move to its grid.

        Raises:
            ConfigError: the image does not fit.
        """
        super().set_image_size(image_size)
        for module in self.modules():
            if isinstance(module, Movable):
                module.move_to(self.config.grid())

    def no_decay(self) -> set[str]:
        """Biases, norms, tokens and positions: all but the weights of dense layers and convolutions."""
        tables = ("prefix.", "positions.")
        named = self.named_parameters()
        return {
            name
            for name, parameter in named
            if parameter.ndim < 2
            or name.startswith(tables)
            or ".relative." in name
            or ".offset_bias." in name
        }

    def layer_groups(self) -> list[list[str]]:
        """The stem with prefix and positions, each block with positions of its own, and the last norm."""
        groups: list[list[str]] = [[] for _ in range(len(self.blocks) + 2)]
        own = {"blocks", "positions"} if self.config.position_at == "block" else {"blocks"}
        for name, _ in self.named_parameters():
            first, second = name.split(".")[:2]
            index = int(second) + 1 if first in own else 0 if first in EMBEDDING else -1
            groups[index].append(name)
        return groups


def _positions(config: EncoderConfig) -> nn.Module:
    """What is added to the tokens at one place."""
    prefix = config.special_tokens if config.prefix_positions else 0
    added = "learned" if config.position == "learned_rotary" else config.position
    return make_positions(
        added, grid=config.grid(), width=config.width, prefix=prefix, mode=config.position_mode
    )


def _block(config: EncoderConfig, index: int) -> Block:
    """Block ``index``, its stochastic depth growing linearly from 0 at the first block."""
    rate = config.drop_path * index / max(1, config.depth - 1)
    return Block(
        _attention(config, index),
        _mlp(config),
        width=config.width,
        norm=config.norm,
        norm_kind=config.norm_kind,
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
        "out_bias": config.dense_bias,
        "norms": partial(make_token_norm, config.norm_kind, eps=config.norm_eps),
        "qk_norm": config.qk_norm,
        "inner_norm": config.inner_norm == "both",
    }
    if not config.needs_grid:
        return Attention(config.width, config.heads, **options)
    rotation = Rotation(
        base=config.rotary_base,
        places=config.rotary_places,
        reference=config.rotary_grid,
        offset=config.rotary_offset,
    )
    return GridAttention(
        config.width,
        config.heads,
        windows=config.windows(index),
        grid=config.grid(),
        relative=config.relative(index),
        rotary=rotation if config.rotates else None,
        biased=config.position == "offset_bias",
        **options,
    )


def _mlp(config: EncoderConfig) -> Mlp | SwiGlu:
    hidden = config.mlp_width
    options: dict[str, Any] = {"dropout": config.dropout, "bias": config.dense_bias}
    if config.inner_norm != "none":
        options["norm"] = make_token_norm(config.norm_kind, hidden, eps=config.norm_eps)
    if config.mlp == "swiglu":
        return SwiGlu(config.width, hidden, **options)
    return Mlp(config.width, hidden, activation=config.activation, **options)


def _pool(config: EncoderConfig) -> nn.Module:
    if config.pool == "attention":
        return AttentionPool(
            config.width,
            config.pooling_heads,
            hidden=config.pooling_mlp_width,
            activation=config.activation,
            norm_kind=config.norm_kind,
            norm_eps=config.norm_eps,
            with_prefix=config.pool_prefix,
        )
    simple = {
        "class": ClassPool(config.special_tokens),
        "mean": MeanPool(),
        "class_mean": ClassMeanPool(),
        "sequence": SequencePool(config.width),
    }
    return simple[config.pool]
