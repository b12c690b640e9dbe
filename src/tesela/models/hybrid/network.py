"""Hybrid (arXiv 2010.11929, section 3.1): patches of a ResNet's feature map.

Dosovitskiy et al. 2021; the shared encoder follows.

The residual network is that of the paper's JAX code: bottlenecks with the norm after the convolution,
weight-standardised convolutions, GroupNorm, padding as XLA does it. Its checkpoints give the same logits.

Odd: the code adds the epsilon of the standardisation to the standard deviation, not to the variance.
"""

from __future__ import annotations

from torch import Tensor, nn

from tesela.layers.convolution.residual import ResidualBody, ResidualStyle
from tesela.layers.patch import PatchEmbedding
from tesela.layers.trace import OFF, Trace
from tesela.models.encoder.network import Encoder
from tesela.models.hybrid.config import HybridConfig

#: Added to the standard deviation of a convolution's weights, and to the variance in a GroupNorm, as in that
#: code; timm adds to both variances.
HYBRID_EPS, NORM_EPS = 1e-5, 1e-6
TIMM_HYBRID_EPS, TIMM_NORM_EPS = 1e-8, 1e-5


class HybridPatches(nn.Module):
    """(B, C, H, W) to (B, n, D): a feature map, then one linear map of each of its patches.

    Args:
        config: of the hybrid.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        plan = config.plan()
        paper = config.arithmetic == "paper"
        style = ResidualStyle(
            norm="group",
            groups=config.norm_groups,
            norm_eps=NORM_EPS if paper else TIMM_NORM_EPS,
            standardise="sum" if paper else "root",
            standardise_eps=HYBRID_EPS if paper else TIMM_HYBRID_EPS,
            same=True,
        )
        self.backbone = ResidualBody(plan, style)
        self.projection = PatchEmbedding(plan.width, config.width, patch=config.patch_size)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The tokens, in raster order."""
        tokens: Tensor = self.projection(self.backbone(images, trace=trace.inside("backbone"))[-1])
        return tokens


class Hybrid(Encoder[HybridConfig]):
    """A hybrid backbone, (B, C, H, W) to tokens (B, prefix + n, D)."""

    def make_stem(self, config: HybridConfig) -> HybridPatches:
        """A residual network and the patches of its map."""
        return HybridPatches(config)
