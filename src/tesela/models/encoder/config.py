"""Configuration of transformer encoders, with closed-form size, without torch.

Parameters and operations.

A family's config adds how an image becomes tokens: ``grid``, ``stem_parameters`` and ``stem_products``.

Odd: the number of classes is no field. It belongs to the data, and a head can be exchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Self

from tesela.core.errors import ConfigError
from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.grid import Grid
from tesela.models.config import ModelConfig
from tesela.models.encoder.checks import check_positions, check_special_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(ModelConfig):
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
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] = "gelu"
    """Activation of the MLP; gelu_tanh is the approximation of the paper's code, quick_gelu OpenAI's."""
    mlp: Literal["plain", "swiglu"] = "plain"
    """plain: two layers; swiglu: the first layer gives a gate too, whose SiLU multiplies the rest."""
    attention: Literal["full", "wide", "axial", "local"] = "full"
    """full: all tokens; wide: full, each head keeps the full width; axial: rows and columns in turn, block by
    block; local: windows."""
    window: int = 7
    """With local: side of a window in tokens; every second block's windows are shifted by half of it."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have a bias."""
    dense_bias: bool = True
    """Whether the output projection and the dense layers of the MLP have biases."""
    qk_norm: bool = False
    """Norm of each head's queries and keys."""
    inner_norm: Literal["none", "mlp", "both"] = "none"
    """Norm before the last dense layer of the MLP, or of both branches."""
    input_norm: Literal["none", "batch"] = "none"
    """batch: BatchNorm of the image's channels before anything else, in place of fixed statistics."""
    embedded_norm: Literal["none", "patches", "tokens"] = "none"
    """Norm before the first block: of the embedded patches, or of all tokens with their positions (CLIP)."""
    norm: Literal["pre", "post", "branch", "parallel"] = "pre"
    """Norm before each branch (the paper), after each sum, at the end of each branch, or once before both
    branches, which are side by side (ViT-22B)."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm, which subtracts no mean and has no bias."""
    norm_eps: float = 1e-6
    """Epsilon of the norms."""
    final_norm: bool = True
    """Norm after the last block."""
    layer_scale: float = 0.0
    """Start value of a learned factor per channel on each branch; 0 for none, 1e-5 is usual."""
    position: Literal[
        "learned", "learned2d", "sincos2d", "relative", "offset_bias", "rotary", "learned_rotary", "none"
    ] = "learned"
    """learned, learned2d (rows and columns) and sincos2d are added to the tokens; relative, offset_bias (a
    number per offset) and rotary act in each attention; learned_rotary does both."""
    rotary_places: Literal["tokens", "reference", "centred"] = "tokens"
    """What rotary positions count: tokens, tokens of rotary_grid that the image is stretched to (EVA-02), or
    -1 to 1 across the image (DINOv3)."""
    rotary_grid: tuple[int, int] = (16, 16)
    """Rows and columns that rotary positions are stretched to, with rotary_places=reference."""
    rotary_offset: float = 0.0
    """Added to the numbers of rows and columns of rotary positions; prefix tokens stay at 0."""
    rotary_base: float = 100.0
    """The larger, the slower the slowest pairs of rotary positions turn."""
    position_at: Literal["input", "block", "shared"] = "input"
    """Where positions are added: at the input, a table of its own before every block, or one table before
    every block."""
    position_mode: Literal["bicubic", "bicubic_antialias", "bicubic_offset", "bilinear"] = "bicubic"
    """How learned positions are interpolated to another grid; antialias: as timm and DINOv2 with registers
    do; offset: as the code of DINO and of DINOv2 without registers does."""
    prefix_positions: bool = True
    """Whether class and distillation token have learned positions too."""
    pool: Literal["class", "mean", "class_mean", "sequence", "attention"] = "class"
    """How the tokens become one vector; class and class_mean (both, side by side) add a class token."""
    pool_prefix: bool = True
    """With attention pooling: whether the query reads prefix tokens too (timm's pool_include_prefix)."""
    pool_heads: int = 0
    """Heads of attention pooling; 0 takes those of the blocks."""
    pool_mlp_ratio: float = 0.0
    """Hidden width of the MLP of attention pooling as a multiple of the width; 0 takes that of the blocks."""
    pooled_norm: bool = False
    """Norm of the pooled vector (timm's fc_norm), usually instead of final_norm."""
    class_tokens: int = 1
    """With pool=class: number of class tokens, whose mean the head reads (Pixio)."""
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
        for name in ("channels", "width", "depth", "heads", "window", "class_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, not {getattr(self, name)}", hint=f"give a positive {name}"
                )
        if min(self.image_size) < 1:
            raise ConfigError(
                f"image_size {self.image_size} is not positive", hint="give height and width in pixels"
            )
        if self.attention != "wide" and self.width % self.heads:
            fits = max(heads for heads in range(1, self.heads + 1) if self.width % heads == 0)
            raise ConfigError(
                f"width {self.width} is not divisible by {self.heads} heads",
                hint=f"use {fits} heads or attention=wide",
            )
        check_positions(self)
        if self.attention == "axial" and self.depth % 2:
            raise ConfigError(
                f"axial attention takes rows and columns in turn and cannot end halfway: depth {self.depth} "
                "is odd",
                hint=f"use depth {self.depth + 1}; two blocks make one axial block of the paper",
            )
        if self.patch_dropout and self.attention in ("axial", "local"):
            raise ConfigError(
                f"patch_dropout leaves holes in the grid that {self.attention} attention needs",
                hint="use attention full or wide, or drop it",
            )
        if self.pool == "attention" and (self.pool_heads < 0 or self.width % self.pooling_heads):
            raise ConfigError(
                f"attention pooling needs a width divisible by its {self.pooling_heads} heads",
                hint="change pool_heads, heads, width or pool",
            )
        for name in ("dropout", "attention_dropout", "drop_path", "patch_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"{name} must be in [0, 1), not {getattr(self, name)}", hint="0.1 is a usual value"
                )
        if (
            self.mlp_ratio <= 0
            or min(self.registers, self.head_width, self.layer_scale, self.pool_mlp_ratio) < 0
        ):
            raise ConfigError(
                "mlp_ratio must be positive, registers, head_width and layer_scale not negative",
                hint="leave them at their defaults",
            )
        check_special_tokens(self)
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
        return self.class_tokens * (self.pool in ("class", "class_mean")) + self.distillation

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return self.special_tokens + self.registers

    @property
    def attention_width(self) -> int:
        """Width of all heads together."""
        return self.width * self.heads if self.attention == "wide" else self.width

    @property
    def per_head(self) -> int:
        """Width of one head (d)."""
        return self.attention_width // self.heads

    @property
    def pooled_width(self) -> int:
        """Width of what the head reads."""
        return 2 * self.width if self.pool == "class_mean" else self.width

    @property
    def pooling_heads(self) -> int:
        """Heads of attention pooling."""
        return self.pool_heads or self.heads

    @property
    def pooling_mlp_width(self) -> int:
        """Hidden width of the MLP of attention pooling."""
        return round(self.width * (self.pool_mlp_ratio or self.mlp_ratio))

    @property
    def rotates(self) -> bool:
        """Whether positions are rotary, whatever is added besides."""
        return self.position in ("rotary", "learned_rotary")

    @property
    def needs_grid(self) -> bool:
        """Whether the attention must know where its tokens stand."""
        inside = self.rotates or self.position in ("relative", "offset_bias")
        return inside or self.attention in ("axial", "local")

    def windows(self, index: int) -> WindowPlan:
        """Which patches see one another in block ``index``."""
        if self.attention == "axial":
            return WindowPlan("columns" if index % 2 else "rows")
        if self.attention == "local":
            return WindowPlan("windows", self.window, shifted=index % 2 == 1)
        return WindowPlan()

    def relative(self, index: int) -> bool:
        """Whether block ``index`` has relative positions.

        A last block of which only prefix tokens are read has no use for them.
        """
        return self.position == "relative" and not (self.pool == "class" and index == self.depth - 1)

    def backbone_parameters(self) -> int:
        """Number of trainable values before the pool, in closed form."""
        grid = self.grid()
        width, hidden, inner, dense = self.width, self.mlp_width, self.attention_width, self.dense_bias
        attention = 3 * inner * (width + self.qkv_bias) + (inner + dense) * width
        plain = 2 * width * hidden + dense * (hidden + width)
        norm = self._norm_parameters(width)
        mlp = plain + hidden * (width + dense) if self.mlp == "swiglu" else plain
        attention += 2 * self.qk_norm * self._norm_parameters(self.per_head)
        attention += (self.inner_norm == "both") * self._norm_parameters(inner)
        mlp += (self.inner_norm != "none") * self._norm_parameters(hidden)
        branches = 1 if self.norm == "parallel" else 2
        scales = width if self.layer_scale else 0
        blocks = self.depth * (attention + mlp + branches * (norm + scales))
        blocks += inner * sum(
            sum(self.windows(index).offsets(grid)) for index in range(self.depth) if self.relative(index)
        )
        if self.position == "offset_bias":
            blocks += self.depth * self.heads * ((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3)
        stem = self.stem_parameters() + (2 * self.channels if self.input_norm == "batch" else 0)
        norms = (self.final_norm + (self.embedded_norm != "none")) * norm
        return stem + self.prefix * width + self._table_parameters(grid) + blocks + norms

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values of a classifier, in closed form."""
        width = self.width
        hidden = self.pooling_mlp_width
        attention = width + 4 * width * (width + 1) + self._norm_parameters(width) + 2 * width * hidden
        attention += hidden + width
        pool = {"sequence": width + 1, "attention": attention}.get(self.pool, 0)
        pool += self.pooled_norm * self._norm_parameters(self.pooled_width)
        return self.backbone_parameters() + pool + self._head_parameters(num_classes)

    def _norm_parameters(self, width: int) -> int:
        return width if self.norm_kind == "rms" else 2 * width

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the tokens.

        Norms, activations, softmax and sums are left out, as is usual.
        """
        grid = self.grid(image_size)
        count = grid[0] * grid[1] + self.prefix
        width, inner = self.width, self.attention_width
        layers = (3 if self.mlp == "swiglu" else 2) * width * self.mlp_width
        blocks = self.depth * count * (4 * width * inner + layers)
        for index in range(self.depth):
            windows = self.windows(index)
            offsets = windows.offset_products(grid) if self.relative(index) else 0
            blocks += inner * (2 * windows.pairs(grid, prefix=self.prefix) + offsets)
        return self.stem_products(image_size) + blocks

    def flops(self, num_classes: int = 1000, *, image_size: tuple[int, int] | None = None) -> int:
        """Operations of one image's forward pass through a classifier.

        Two for each multiply-add of a matrix product or convolution.
        """
        size, width = image_size or self.image_size, self.width
        patches = self.grid(size)[0] * self.grid(size)[1]
        count = patches + self.prefix * self.pool_prefix
        mapped = 2 * count + 2  # tokens to keys and values, the probe to its query, the result to the output
        pool = {
            "sequence": 2 * patches * width,
            "attention": mapped * width * width + 2 * count * width + 2 * width * self.pooling_mlp_width,
        }.get(self.pool, 0)
        return 2 * (self.backbone_products(size) + pool + self._head_products(num_classes))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of a feature map."""
        return (self.width,)

    def stage_grids(self, image_size: tuple[int, int]) -> list[Grid]:
        """The one grid."""
        return [self.grid(image_size)]

    def tiny(self) -> Self:
        """Two blocks of width 16, for 20 x 12 pixels."""
        return replace(self, width=16, depth=2, heads=2, image_size=(20, 12))

    def summary(self) -> str:
        """Blocks, width, heads and grid."""
        rows, columns = self.grid()
        heads = f"{self.heads} wide heads" if self.attention == "wide" else f"{self.heads} heads"
        return (
            f"{self.depth} blocks, width {self.width}, {heads}, {rows}x{columns} tokens at "
            f"{self.image_size[0]} px"
        )

    def _table_parameters(self, grid: Grid) -> int:
        """Of the tables that are added to tokens."""
        special = self.special_tokens if self.prefix_positions else 0
        rows = {
            "learned": 2 * (special + grid[0] * grid[1]),
            "learned_rotary": 2 * (special + grid[0] * grid[1]),
            "learned2d": 2 * special + grid[0] + grid[1],
        }.get(self.position, 0)
        return rows * self.width // 2 * (self.depth if self.position_at == "block" else 1)

    def _head_parameters(self, num_classes: int) -> int:
        if self.head == "linear":
            return (self.pooled_width + 1) * num_classes
        hidden = self.head_width or self.width
        return (self.pooled_width + 1) * hidden + (hidden + 1) * num_classes

    def _head_products(self, num_classes: int) -> int:
        hidden = self.head_width or self.width
        return (
            self.pooled_width * num_classes
            if self.head == "linear"
            else hidden * (self.pooled_width + num_classes)
        )
