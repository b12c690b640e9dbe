"""Contracting half of a U-Net (arXiv 1505.04597), convolutions padded, with batch norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.convolution.separable import ConvUnit
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.unet.config import UnetConfig


class Unet(Backbone[UnetConfig]):
    """Images (B, C, H, W) to positions of the coarsest map (B, n, D), with the maps of all scales.

    Args:
        config: the network's configuration.
    """

    pyramid = channels_last = True

    def __init__(self, config: UnetConfig) -> None:
        super().__init__(config)
        self.scales = nn.ModuleList(
            nn.Sequential(*(ConvUnit(before, after, separable=thin) for before, after, thin in units))
            for units in config.units()
        )

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """The coarsest map's positions in raster order, and the map of each scale."""
        del first, taps
        maps: list[Tensor] = []
        for number, scale in enumerate(self.scales):
            result = scale(F.max_pool2d(maps[-1], 2) if maps else images)
            maps.append(trace(f"scales.{number}", result))
        grid = maps[-1].shape[2], maps[-1].shape[3]
        return Features(tokens=maps[-1].flatten(2).transpose(1, 2), grid=grid, prefix=0, stages=tuple(maps))

    def layer_groups(self) -> list[list[str]]:
        """Each scale."""
        groups: list[list[str]] = [[] for _ in self.scales]
        for name, _ in self.named_parameters():
            groups[int(name.split(".")[1])].append(name)
        return groups
