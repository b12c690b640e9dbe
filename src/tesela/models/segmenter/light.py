"""Light decoder: depthwise-separable convolutions from coarse to fine, on any backbone.

Each feature map is brought to one width; from the coarsest on, the sum so far is upsampled to the next finer
size, the maps of that size are added and a separable convolution mixes neighbours. Tokens of a ViT lie 14 or
16 pixels apart, so a few convolutions of the image itself add what lies between them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.convolution.separable import ConvUnit
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Features
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import CONTEXT, DETAIL, LightDecoderConfig, read_widths


class LightDecoder(nn.Module):
    """Feature maps (B, D_i, H_i, W_i) to logits (B, K, h, w) at the size of the finest, or a quarter.

    Args:
        config: width, details, dropout.
        backbone: the configuration of what gives the maps.
        num_classes: K.
    """

    def __init__(self, config: LightDecoderConfig, backbone: ModelConfig, num_classes: int) -> None:
        super().__init__()
        width, before = config.width, backbone.channels
        self.detail, self.detail_maps = nn.ModuleList(), nn.ModuleList()
        for stride, after in config.detail_levels(backbone):
            self.detail.append(ConvUnit(before, after, separable=stride > DETAIL[0][0], stride=2))
            if stride > DETAIL[0][0]:
                self.detail_maps.append(ConvUnit(after, width, kernel=1))
            before = after
        self.maps = nn.ModuleList(ConvUnit(each, width, kernel=1) for each in read_widths(config, backbone))
        self.context = nn.Sequential(*(ConvUnit(width, width, separable=True) for _ in range(CONTEXT)))
        self.refine = nn.ModuleList(
            ConvUnit(width, width, separable=True) for _ in range(config.refinements(backbone))
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.linear = nn.Conv2d(width, num_classes, 1)

    def reset(self, generator: Generator | None = None) -> None:
        """The last layer zero, so that every class starts equally likely."""
        del generator
        nn.init.zeros_(self.linear.weight)
        assert self.linear.bias is not None
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits on the finest scale."""
        total, *finer = self._scales(features, images)
        total = trace("context", self.context(total))
        for index, (cells, unit) in enumerate(zip(finer, self.refine, strict=True)):
            grown = F.interpolate(total, size=cells.shape[2:], mode="bilinear", align_corners=False)
            total = trace(f"refine.{index}", unit(grown + cells))
        return trace("linear", self.linear(self.dropout(total)))

    def _scales(self, features: Features, images: Tensor) -> list[Tensor]:
        """Maps (B, width, h, w) from coarse to fine, one for each size."""
        scales: list[Tensor] = []
        for unit, stage in zip(self.maps, features.stages, strict=True):
            cells = unit(stage)
            if scales and scales[0].shape == cells.shape:
                scales[0] = scales[0] + cells
            else:
                scales.insert(0, cells)
        details: list[Tensor] = []
        result = images
        for index, unit in enumerate(self.detail):
            result = unit(result)
            if index:
                details.insert(0, self.detail_maps[index - 1](result))
        return scales + details
