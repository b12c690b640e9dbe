"""Patch decoder: each token becomes the logits of its own patch's pixels.

A linear layer D -> P * P * K shared by all tokens, then the patches put together to an image; with ``hidden``
an MLP in its place.

Odd: nothing passes between patches after the encoder, so borders of patches show in the masks.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.initialise import xavier_uniform_
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Features
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import PatchDecoderConfig, patch_side


class PatchDecoder(nn.Module):
    """Tokens (B, prefix + n, D) to logits (B, K, H, W).

    Args:
        config: width of a hidden layer.
        backbone: the configuration of what gives the tokens.
        num_classes: K.
    """

    def __init__(self, config: PatchDecoderConfig, backbone: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.patch = patch_side(backbone)
        read = config.hidden or backbone.token_width
        self.hidden = nn.Linear(backbone.token_width, read) if config.hidden else None
        self.linear = nn.Linear(read, self.patch[0] * self.patch[1] * num_classes)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights, biases zero."""
        for layer in (self.hidden, self.linear):
            if layer is not None:
                xavier_uniform_(layer, generator=generator)

    def forward(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits of every pixel."""
        del images
        tokens = features.tokens[:, features.prefix :]
        if self.hidden is not None:
            tokens = trace("hidden", F.gelu(self.hidden(tokens)))
        pixels = trace("linear", self.linear(tokens))
        rows, columns = features.grid
        apart = pixels.view(pixels.shape[0], rows, columns, *self.patch, -1)  # (B, rows, columns, ph, pw, K)
        return trace("image", apart.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3))
