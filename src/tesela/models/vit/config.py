"""Sizes of the Vision Transformer, without torch.

B, L and H are Table 1 of the paper (arXiv 2010.11929), Ti and S are of arXiv 2106.10270. ``bhalf`` is the
paper's "b": B with every width halved, that of a head too (32). The number in a name is the patch side:
``vit_s16``. ViT-Lite is of arXiv 2104.05704, for 32 px.

Odd: ``vit_mnist_article`` is article C's network as printed: patches of 7 x 7, so 17 tokens, width 100,
three blocks, three heads that keep the full width (613,710 parameters), ReLU. Two things are put right:
its attention mixes tokens, where the printed order of view and transpose mixes channels, and its last
LayerNorm, printed and never called, is applied. Its library twin has two ordinary heads and GELU, 371,910
parameters. Epsilon is torch's 1e-5 in both. ``vit_mnist_fine`` and its twin are ours: patches of 4 x 4, 50
tokens, GELU; their sums are the same, as patches and positions swap their 5,000 and 1,700.
``vit_seg_article`` is article B's segmenter of 86,284,806 parameters: batch norm of the image, no class
token, no last norm, each token to its own patch's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.grid import Grid, patch_grid
from tesela.models.encoder.config import EncoderConfig


@registered_config(
    "model",
    "vit",
    target="tesela.models.vit.network:ViT",
    summary="Vision Transformer on square or other patches",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class ViTConfig(EncoderConfig):
    """A Vision Transformer."""

    patch_size: tuple[int, int] = (16, 16)
    """Height and width of a patch in pixels."""
    patch_mode: Literal["linear", "conv"] = "linear"
    """How patches are embedded: cut and multiplied, or a strided convolution; same weights, same result."""

    cut_edges: bool = False
    """Whether pixels beyond the last whole patch are left out; else such images are refused."""
    patch_bias: bool = True
    """Whether the patch embedding has a bias."""

    def __post_init__(self) -> None:
        """Check the patches, then the rest."""
        if min(self.patch_size) < 1:
            raise ConfigError(
                f"patch_size {self.patch_size} is not positive", hint="give height and width in pixels"
            )
        EncoderConfig.__post_init__(self)

    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of patches."""
        return patch_grid(image_size or self.image_size, self.patch_size, cut=self.cut_edges)

    def tiny(self) -> Self:
        """Two blocks of width 16 on 3 x 2 patches."""
        size = 3 * self.patch_size[0], 2 * self.patch_size[1]
        return replace(self, width=16, depth=2, heads=2, image_size=size)

    def stem_parameters(self) -> int:
        """Weight and bias of the patch embedding."""
        return (self.channels * self.patch_size[0] * self.patch_size[1] + self.patch_bias) * self.width

    def stem_products(self, image_size: tuple[int, int]) -> int:
        """One product per patch."""
        rows, columns = self.grid(image_size)
        return rows * columns * self.channels * self.patch_size[0] * self.patch_size[1] * self.width


Row = dict[str, Any]

SIZES: dict[str, Row] = {
    "ti": {"width": 192, "depth": 12, "heads": 3},
    "s": {"width": 384, "depth": 12, "heads": 6},
    "bhalf": {"width": 384, "depth": 12, "heads": 12},
    "b": {"width": 768, "depth": 12, "heads": 12},
    "l": {"width": 1024, "depth": 24, "heads": 16},
    "h": {"width": 1280, "depth": 32, "heads": 16},
}
PATCHES = (4, 8, 14, 16, 32)

_LITE: Row = {"image_size": (32, 32), "width": 256, "heads": 4, "mlp_ratio": 2.0}
_DIGITS: Row = {"image_size": (28, 28), "channels": 1, "width": 100, "depth": 3}
_ARTICLE: Row = {**_DIGITS, "patch_size": (7, 7), "norm_eps": 1e-5}
_FINE: Row = {**_DIGITS, "patch_size": (4, 4)}

_COMPACT: dict[str, Row] = {
    "vit_lite6_p4": {**_LITE, "depth": 6, "patch_size": (4, 4)},
    "vit_lite7_p4": {**_LITE, "depth": 7, "patch_size": (4, 4)},
    "vit_lite7_p8": {**_LITE, "depth": 7, "patch_size": (8, 8)},
    "cvt7_p4": {**_LITE, "depth": 7, "patch_size": (4, 4), "pool": "sequence"},
    "vit_mini_p8": {
        "image_size": (64, 64),
        "width": 192,
        "depth": 9,
        "heads": 6,
        "mlp_ratio": 2.0,
        "patch_size": (8, 8),
    },
    "vit_nano": {
        "image_size": (8, 8),
        "channels": 1,
        "width": 64,
        "depth": 4,
        "heads": 4,
        "mlp_ratio": 2.0,
        "patch_size": (2, 2),
    },
    "vit_mnist": {
        "image_size": (28, 28),
        "channels": 1,
        "width": 128,
        "depth": 6,
        "heads": 4,
        "mlp_ratio": 2.0,
        "patch_size": (4, 4),
    },
    "vit_mnist_article": {**_ARTICLE, "heads": 3, "attention": "wide", "activation": "relu"},
    "vit_mnist_article_twin": {**_ARTICLE, "heads": 2},
    "vit_mnist_fine": {**_FINE, "heads": 3, "attention": "wide"},
    "vit_mnist_fine_twin": {**_FINE, "heads": 4},
}

MODELS: dict[str, Row] = {
    f"vit_{size}{patch}": {**row, "patch_size": (patch, patch)}
    for size, row in SIZES.items()
    for patch in PATCHES
}
MODELS |= _COMPACT
MODELS["vit_seg_article"] = {
    "image_size": (128, 128),
    "heads": 8,
    "dropout": 0.2,
    "input_norm": "batch",
    "pool": "mean",
    "final_norm": False,
}
#: The decoder of the article's segmenter, and its classes: pet, background, border.
DECODERS: dict[str, Row] = {"vit_seg_article": {"name": "patch"}}
CLASSES = {"vit_seg_article": 3}
