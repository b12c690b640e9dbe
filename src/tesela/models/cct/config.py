"""Sizes of the Compact Convolutional Transformer, without torch.

A name reads cct_DEPTH_KERNELxLAYERS_PIXELS, as in the paper's code (arXiv 2104.05704).

Odd: there, the residual stream itself goes through the second LayerNorm of each block; here blocks are
pre-norm like those of every other family. Parameter counts are the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.grid import Grid, conv_grid
from tesela.models.encoder.config import EncoderConfig


@registered_config(
    "model",
    "cct",
    target="tesela.models.cct.network:CCT",
    summary="Compact transformer with a convolutional tokenizer",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class CCTConfig(EncoderConfig):
    """A Compact Convolutional Transformer."""

    pool: Literal["class", "mean", "class_mean", "sequence", "attention"] = "sequence"
    """How the tokens become one vector; class and class_mean (both, side by side) add a class token."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have a bias."""
    tokenizer_layers: int = 1
    """How many times convolution, ReLU and pooling are repeated."""
    tokenizer_kernel: int = 3
    """Side of the convolutions."""
    tokenizer_stride: int = 1
    """Stride of the convolutions."""
    tokenizer_pool: int = 3
    """Side of the max-pooling window."""
    tokenizer_pool_stride: int = 2
    """Stride of the max-pooling."""
    tokenizer_width: int = 64
    """Channels between the tokenizer's layers."""
    tokenizer_norm: Literal["none", "batch"] = "none"
    """BatchNorm after each convolution, or none."""

    def __post_init__(self) -> None:
        """Check the tokenizer, then the rest."""
        for name in ("layers", "kernel", "stride", "pool", "pool_stride", "width"):
            if getattr(self, f"tokenizer_{name}") < 1:
                raise ConfigError(
                    f"tokenizer_{name} must be at least 1", hint=f"give a positive tokenizer_{name}"
                )
        EncoderConfig.__post_init__(self)

    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of tokens."""
        steps = [
            (self.tokenizer_kernel, self.tokenizer_stride),
            (self.tokenizer_pool, self.tokenizer_pool_stride),
        ]
        return conv_grid(image_size or self.image_size, steps * self.tokenizer_layers)

    def tiny(self) -> Self:
        """Two blocks of width 16 behind convolutions of 8 channels."""
        return replace(self, width=16, depth=2, heads=2, image_size=(20, 12), tokenizer_width=8)

    def stem_parameters(self) -> int:
        """Weights of the convolutions, and scale and shift of each BatchNorm."""
        norm = 2 * (self.tokenizer_norm == "batch")
        return sum(
            (before * self.tokenizer_kernel**2 + norm) * after for before, after in self._convolutions()
        )

    def stem_products(self, image_size: tuple[int, int]) -> int:
        """The convolutions' products."""
        total, size = 0, image_size
        for before, after in self._convolutions():
            rows, columns = conv_grid(size, [(self.tokenizer_kernel, self.tokenizer_stride)])
            total += rows * columns * before * after * self.tokenizer_kernel**2
            size = conv_grid((rows, columns), [(self.tokenizer_pool, self.tokenizer_pool_stride)])
        return total

    def _convolutions(self) -> list[tuple[int, int]]:
        sizes = [self.channels, *[self.tokenizer_width] * (self.tokenizer_layers - 1), self.width]
        return list(itertools.pairwise(sizes))


Row = dict[str, Any]

# Table 1 and section 4.1 of the paper; drop_path 0.1 and no other dropout but 0.1 on attention, as in its
# code.
_SIZES: dict[int, Row] = {
    2: {"width": 128, "depth": 2, "heads": 2, "mlp_ratio": 1.0},
    4: {"width": 128, "depth": 4, "heads": 2, "mlp_ratio": 1.0},
    6: {"width": 256, "depth": 6, "heads": 4, "mlp_ratio": 2.0},
    7: {"width": 256, "depth": 7, "heads": 4, "mlp_ratio": 2.0},
}
_TOKENIZERS = ((2, 3, 2), (4, 3, 2), (6, 3, 1), (6, 3, 2), (7, 3, 1), (7, 3, 2))

MODELS: dict[str, Row] = {
    f"cct_{depth}_{kernel}x{layers}_32": {
        **_SIZES[depth],
        "image_size": (32, 32),
        "tokenizer_kernel": kernel,
        "tokenizer_layers": layers,
        "drop_path": 0.1,
        "attention_dropout": 0.1,
    }
    for depth, kernel, layers in _TOKENIZERS
}
