"""Residual network: body, mean over the feature map, linear head.

Its tokens are the cells of the last feature map in raster order, with nothing before them; there is no attention to trace.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Generator, Tensor, nn

from tesela.layers.convolution.residual import ResidualBody, Style
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.trace import OFF, Trace
from tesela.models.heads import Head
from tesela.models.protocol import Features
from tesela.models.resnet.config import ResNetConfig

#: Inside the square root of the weight standardisation, as the BiT checkpoints were trained.
STANDARDISE_EPS = 1e-10


class ResNet(nn.Module):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        config: what it is.
        num_classes: K.

    Attributes:
        info: the bundle it was loaded from, or None.
    """

    def __init__(self, config: ResNetConfig, *, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.info: Any = None
        style = Style(
            norm=config.norm,
            groups=config.norm_groups,
            norm_eps=config.norm_eps,
            standardise="root" if config.standardise else "none",
            standardise_eps=STANDARDISE_EPS,
        )
        self.backbone = ResidualBody(config.plan(), style, drop_path=config.drop_path)
        self.head = Head(config.width, num_classes)

    def initialise(self, generator: Generator | None = None) -> None:
        """Draw all weights anew: He normal convolutions, the last norm of each unit and the head zero."""
        initialise(self, generator)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.head(self.features(images, trace=trace).pooled, trace=trace.inside("head"))
        return logits

    def features(self, images: Tensor, *, trace: Trace = OFF) -> Features:
        """The cells of the last feature map as tokens, and their mean."""
        cells: Tensor = self.backbone(images, trace=trace.inside("backbone"))
        pooled = trace("pool", cells.mean(dim=(2, 3)))
        grid = cells.shape[2], cells.shape[3]
        return Features(tokens=cells.flatten(2).transpose(1, 2), pooled=pooled, grid=grid, prefix=0)

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of the last feature map of an image of (height, width)."""
        return self.config.grid(image_size)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make another size the model's own; no weight depends on it."""
        self.config = dataclasses.replace(self.config, image_size=image_size)

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by one of ``num_classes``, all zero."""
        old = self.head.linear.weight
        self.head = Head(self.config.width, num_classes).to(device=old.device, dtype=old.dtype)
        self.head.reset()
        self.num_classes = num_classes

    def no_decay(self) -> set[str]:
        """Biases and norms: all but the weights of the convolutions and of the head."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2}

    def layer_groups(self) -> list[list[str]]:
        """The root, each stage, and the last norm with the head."""
        groups: list[list[str]] = [[] for _ in range(len(self.config.stages) + 2)]
        for name, _ in self.named_parameters():
            parts = name.split(".")
            index = 0 if parts[1] == "root" else int(parts[2]) + 1 if parts[1] == "stages" else -1
            groups[index].append(name)
        return groups
