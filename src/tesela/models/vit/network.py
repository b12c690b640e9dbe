"""Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

Non-overlapping patches, then the shared encoder.
"""

from __future__ import annotations

from tesela.layers.patch import PatchEmbedding
from tesela.models.encoder.network import Encoder
from tesela.models.vit.config import ViTConfig


class ViT(Encoder[ViTConfig]):
    """A ViT backbone, (B, C, H, W) to tokens (B, prefix + n, D)."""

    def make_stem(self, config: ViTConfig) -> PatchEmbedding:
        """One linear map of each patch."""
        return PatchEmbedding(
            config.channels,
            config.width,
            patch=config.patch_size,
            mode=config.patch_mode,
            bias=config.patch_bias,
            cut=config.cut_edges,
        )
