"""Compact Convolutional Transformer (Hassani et al. 2021, arXiv 2104.05704).

Convolutions to tokens, then the shared encoder.
"""

from __future__ import annotations

from tesela.layers.convolution.tokenizer import ConvTokenizer
from tesela.models.cct.config import CCTConfig
from tesela.models.encoder.network import Encoder


class CCT(Encoder[CCTConfig]):
    """A CCT backbone, (B, C, H, W) to tokens (B, prefix + n, D)."""

    def make_stem(self, config: CCTConfig) -> ConvTokenizer:
        """Convolutions with pooling."""
        return ConvTokenizer(
            config.channels,
            config.width,
            layers=config.tokenizer_layers,
            kernel=config.tokenizer_kernel,
            stride=config.tokenizer_stride,
            pool_kernel=config.tokenizer_pool,
            pool_stride=config.tokenizer_pool_stride,
            hidden=config.tokenizer_width,
            norm=config.tokenizer_norm,
        )
