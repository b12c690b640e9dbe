"""What every transformer classifier can be told, and its closed-form size: parameters and operations, without torch.

A family's config adds how an image becomes tokens: ``grid``, ``stem_parameters`` and ``stem_products``.

Odd: the number of classes is no field. It belongs to the data, and a head can be exchanged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError
from tesela.layers.grid import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(ABC):
    """Fields common to all families."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels the positions are made for; other sizes work at run time."""
    channels: int = 3
    """Channels of the images."""
    width: int = 768
    """Width of a token (D)."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads of each block."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP as a multiple of the width."""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """Activation of the MLP; gelu_tanh is the approximation of the paper's code."""
    attention: Literal["full", "wide"] = "full"
    """full: a head has width / heads; wide: each head keeps the full width."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have a bias."""
    norm: Literal["pre", "post"] = "pre"
    """LayerNorm before each branch (the paper) or after each sum."""
    norm_eps: float = 1e-6
    """Epsilon of the LayerNorms."""
    final_norm: bool = True
    """LayerNorm after the last block."""
    position: Literal["learned", "sincos2d", "none"] = "learned"
    """Position embedding added at the input."""
    position_mode: Literal["bicubic", "bilinear"] = "bicubic"
    """How learned positions are interpolated to another grid."""
    prefix_positions: bool = True
    """Whether class and distillation token have learned positions too."""
    pool: Literal["class", "mean", "sequence", "attention"] = "class"
    """How the tokens become one vector; only class adds a class token."""
    distillation: bool = False
    """Add a distillation token."""
    registers: int = 0
    """Number of register tokens."""
    head: Literal["linear", "mlp"] = "linear"
    """linear (fine-tuning) or mlp with one tanh hidden layer (pre-training)."""
    head_width: int = 0
    """Hidden width of the mlp head; 0 takes the width."""
    dropout: float = 0.0
    """After positions and after each dense layer except the qkv projections."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks less, linearly from 0."""
    patch_dropout: float = 0.0
    """Share of the patches that each image leaves out while training; a step gets that much cheaper."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        for name in ("channels", "width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}", hint=f"give a positive {name}")
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size {self.image_size} is not positive", hint="give height and width in pixels")
        if self.attention == "full" and self.width % self.heads:
            fits = max(heads for heads in range(1, self.heads + 1) if self.width % heads == 0)
            raise ConfigError(f"width {self.width} is not divisible by {self.heads} heads", hint=f"use {fits} heads or attention=wide")
        if self.position == "sincos2d" and self.width % 4:
            raise ConfigError(f"sincos2d positions need a width divisible by 4, not {self.width}", hint="change the width or the position")
        if self.pool == "attention" and self.width % self.heads:
            raise ConfigError(f"attention pooling needs a width divisible by the {self.heads} heads", hint="change heads, width or pool")
        for name in ("dropout", "attention_dropout", "drop_path", "patch_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}", hint="0.1 is a usual value")
        if self.mlp_ratio <= 0 or self.registers < 0 or self.head_width < 0:
            raise ConfigError("mlp_ratio must be positive, registers and head_width not negative", hint="leave them at their defaults")
        if self.distillation and self.pool != "class":
            raise ConfigError("a distillation token needs the class token beside it", hint="set pool=class")
        self.grid()

    @abstractmethod
    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of patch tokens, of the config's own size or another.

        Raises:
            ConfigError: the image does not fit.
        """

    @abstractmethod
    def stem_parameters(self) -> int:
        """Parameters that turn an image into tokens."""

    @abstractmethod
    def stem_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds that turn an image into tokens."""

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def special_tokens(self) -> int:
        """Class and distillation tokens."""
        return (self.pool == "class") + self.distillation

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return self.special_tokens + self.registers

    @property
    def attention_width(self) -> int:
        """Width of all heads together."""
        return self.width * self.heads if self.attention == "wide" else self.width

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values, in closed form."""
        rows, columns = self.grid()
        width, hidden, inner = self.width, self.mlp_width, self.attention_width
        attention = 3 * inner * (width + self.qkv_bias) + (inner + 1) * width
        mlp = 2 * width * hidden + hidden + width
        norm = 2 * width
        table = rows * columns + (self.special_tokens if self.prefix_positions else 0)
        positions = table * width if self.position == "learned" else 0
        pool = {"sequence": width + 1, "attention": width + 4 * width * (width + 1) + norm + mlp}.get(self.pool, 0)
        body = self.prefix * width + positions + self.depth * (attention + mlp + 2 * norm) + self.final_norm * norm + pool
        return self.stem_parameters() + body + self._head_parameters(num_classes)

    def flops(self, num_classes: int = 1000, *, image_size: tuple[int, int] | None = None) -> int:
        """Operations of one image's forward pass: two for each multiply-add of a matrix product or convolution.

        Norms, activations, softmax and sums are left out, as is usual.
        """
        rows, columns = self.grid(image_size)
        patches, count = rows * columns, rows * columns + self.prefix
        width, inner = self.width, self.attention_width
        block = count * (4 * width * inner + 2 * width * self.mlp_width) + 2 * count * count * inner
        mapped = 2 * count + 2  # tokens to keys and values, the probe to its query, the result to the output
        pool = {
            "sequence": 2 * patches * width,
            "attention": mapped * width * width + 2 * count * width + 2 * width * self.mlp_width,
        }.get(self.pool, 0)
        return 2 * (self.stem_products(image_size or self.image_size) + self.depth * block + pool + self._head_products(num_classes))

    def _head_parameters(self, num_classes: int) -> int:
        if self.head == "linear":
            return (self.width + 1) * num_classes
        hidden = self.head_width or self.width
        return (self.width + 1) * hidden + (hidden + 1) * num_classes

    def _head_products(self, num_classes: int) -> int:
        hidden = self.head_width or self.width
        return self.width * num_classes if self.head == "linear" else hidden * (self.width + num_classes)
