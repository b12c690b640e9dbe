"""A model with a head that the package does not know.

A classifier whose logits are scaled by a learned temperature.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone
from tesela.models.classifier import Classifier


class Tagger(Classifier):
    """(B, C, H, W) to (B, K)."""

    kind = "tagger"

    def __init__(self, backbone: Backbone[Any], *, num_classes: int) -> None:
        super().__init__(backbone, num_classes=num_classes)
        self.temperature = nn.Parameter(torch.ones(()))

    def initialise(self, generator: torch.Generator | None = None) -> None:
        super().initialise(generator)
        nn.init.ones_(self.temperature)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        return super().forward(images, trace=trace) * self.temperature
