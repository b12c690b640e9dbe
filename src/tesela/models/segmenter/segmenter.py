"""Segmenters: backbone and decoder, logits of every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.core.errors import ConfigError
from tesela.core.registry import lookup, register
from tesela.layers.initialise import initialise
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.model import Model
from tesela.models.segmenter.config import decoder_config, decoder_settings


class Segmenter(Model):
    """Images (B, C, H, W) to logits (B, K, H, W).

    Args:
        backbone: turns images into tokens and feature maps.
        num_classes: K.
        decoder: its name and settings, as ``tesela.models.segmenter.config.decoder_config`` reads them.

    Raises:
        ConfigError: the decoder does not go with the backbone.
    """

    kind = "segmenter"
    whole_grid = True

    def __init__(
        self, backbone: Backbone[Any], *, num_classes: int, decoder: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(backbone, num_classes=num_classes)
        name, self.decoder = decoder_config(decoder or {})
        self.decoder.check(backbone.config)
        if getattr(backbone.config, "patch_dropout", 0.0):
            raise ConfigError(
                "patch_dropout leaves holes in the grid that a decoder needs", hint="set it to 0"
            )
        self.options = {"decoder": decoder_settings(name, self.decoder)}
        self._make = lookup("decoder", name).load()
        self.taps = self.decoder.taps(backbone.config)
        self.head = self.make_head(num_classes)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K, H, W); those of a coarser decoder are upsampled, bilinear."""
        if self.backbone.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.decoded(self.backbone(images, trace=trace, taps=self.taps), images, trace=trace)

    def decoded(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K, H, W) of the backbone's features, with the stages of ``taps``, and their images."""
        logits: Tensor = self.head(features, images, trace=trace.inside("head"))
        if logits.shape[2:] != images.shape[2:]:
            logits = F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)
        return trace("head", logits)

    def make_head(self, num_classes: int) -> nn.Module:
        """A decoder with the same settings."""
        head: nn.Module = self._make(self.decoder, self.backbone.config, num_classes)
        return head

    def reset_head(self, num_classes: int) -> None:
        """Replace the decoder by a new one for ``num_classes``."""
        old = next(self.head.parameters())
        self.head = self.make_head(num_classes).to(device=old.device, dtype=old.dtype)
        initialise(self.head)
        self.num_classes = num_classes


register("head", Segmenter.kind, target=f"{__name__}:Segmenter", summary="decoder: logits of every pixel")
