"""Expanding half of a U-Net (arXiv 1505.04597): upsampling, skip connection, convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.convolution.separable import ConvUnit
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Features
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import UnetDecoderConfig


class UnetDecoder(nn.Module):
    """Feature maps (B, D_i, H_i, W_i) to logits at the size of the finest, or finer.

    Args:
        config: widths, and whether convolutions are separable.
        backbone: the configuration of what gives the maps.
        num_classes: K.
    """

    def __init__(self, config: UnetDecoderConfig, backbone: ModelConfig, num_classes: int) -> None:
        super().__init__()
        thin, levels = config.thin(backbone), config.levels(backbone)
        self.levels = nn.ModuleList(
            nn.Sequential(ConvUnit(before, after, separable=thin), ConvUnit(after, after, separable=thin))
            for before, after in levels
        )
        self.linear = nn.Conv2d(levels[-1][1], num_classes, 1)

    def reset(self, generator: Generator | None = None) -> None:
        """The last layer zero, so that every class starts equally likely."""
        del generator
        nn.init.zeros_(self.linear.weight)
        assert self.linear.bias is not None
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits of the finest scale; each level doubles the size, or takes that of its skip."""
        del images
        maps = features.stages[::-1]
        result = maps[0]
        for index, level in enumerate(self.levels):
            if index + 1 < len(maps):
                skip = maps[index + 1]
                grown = F.interpolate(result, size=skip.shape[2:], mode="nearest")
                result = torch.cat([grown, skip], dim=1)
            else:
                result = F.interpolate(result, scale_factor=2.0, mode="nearest")
            result = trace(f"levels.{index}", level(result))
        return trace("linear", self.linear(result))
