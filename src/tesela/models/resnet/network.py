"""Residual networks as backbones.

Tokens are the positions of the last feature map in raster order, with nothing before them; there is no
attention to trace.
"""

from __future__ import annotations

from torch import Tensor

from tesela.layers.convolution.residual import ResidualBody, ResidualStyle
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.resnet.config import ResNetConfig

#: Inside the square root of the weight standardisation, as the BiT checkpoints were trained.
STANDARDISE_EPS = 1e-10


class ResNet(Backbone[ResNetConfig]):
    """Images (B, C, H, W) to positions of the last feature map as tokens (B, n, D).

    Args:
        config: the network's configuration.
    """

    pyramid = channels_last = True

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        style = ResidualStyle(
            norm=config.norm,
            groups=config.norm_groups,
            norm_eps=config.norm_eps,
            standardise="root" if config.standardise else "none",
            standardise_eps=STANDARDISE_EPS,
        )
        self.backbone = ResidualBody(config.plan(), style, drop_path=config.drop_path)

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """The last feature map of images (B, C, H, W), in raster order, and the map of each scale."""
        del first, taps
        maps = self.backbone(images, trace=trace.inside("backbone"))
        grid = maps[-1].shape[2], maps[-1].shape[3]
        return Features(tokens=maps[-1].flatten(2).transpose(1, 2), grid=grid, prefix=0, stages=maps)

    def layer_groups(self) -> list[list[str]]:
        """The root, each stage, and the last norm."""
        groups: list[list[str]] = [[] for _ in range(len(self.config.stages) + 2)]
        for name, _ in self.named_parameters():
            parts = name.split(".")
            index = 0 if parts[1] == "root" else int(parts[2]) + 1 if parts[1] == "stages" else -1
            groups[index].append(name)
        return groups
