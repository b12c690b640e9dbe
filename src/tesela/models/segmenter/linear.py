"""Linear decoder: the logits of a token, for all pixels around it."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Features
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import LinearDecoderConfig


class LinearDecoder(nn.Module):
    """Tokens (B, prefix + n, D) to logits (B, K, rows, columns).

    Args:
        config: has no settings.
        backbone: the configuration of what gives the tokens.
        num_classes: K.
    """

    def __init__(self, config: LinearDecoderConfig, backbone: ModelConfig, num_classes: int) -> None:
        super().__init__()
        del config
        self.linear = nn.Linear(backbone.token_width, num_classes)

    def reset(self, generator: Generator | None = None) -> None:
        """Zero, so that every class starts equally likely."""
        del generator
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits on the tokens' grid."""
        del images
        logits = self.linear(features.tokens[:, features.prefix :])
        return trace("linear", on_grid(logits, features.grid))
