"""Sizes of DeiT (Touvron et al. 2021, arXiv 2012.12877, table 1), without torch.

Ti, S and B on patches of 16 pixels.

Odd: a DeiT that was trained without a teacher is a ``vit``; the distillation token without its own head is
``vit`` with ``distillation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.models.encoder.config import EncoderConfig
from tesela.models.vit.config import SIZES as VIT
from tesela.models.vit.config import ViTConfig


@registered_config(
    "model",
    "deit",
    target="tesela.models.deit.network:DeiT",
    summary="Vision Transformer with distillation token and head",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class DeiTConfig(ViTConfig):
    """A data-efficient image transformer."""

    distillation: bool = True
    """Add a distillation token; a DeiT always has it."""

    def __post_init__(self) -> None:
        """Check that both tokens and both heads are there, then the rest."""
        if not self.distillation or self.pool != "class":
            raise ConfigError(
                "a DeiT has a class and a distillation token",
                hint="leave distillation and pool alone, or use a vit model",
            )
        if self.head != "linear":
            raise ConfigError(
                "the heads of a DeiT are linear", hint="leave head alone, or use a vit model with head=mlp"
            )
        ViTConfig.__post_init__(self)

    @property
    def pooled_width(self) -> int:
        """Width of the heads' input: both tokens."""
        return 2 * self.width

    def summary(self) -> str:
        """As of a ViT, with what is added."""
        return f"{EncoderConfig.summary(self)}, two heads"

    def _head_parameters(self, num_classes: int) -> int:
        return 2 * (self.width + 1) * num_classes

    def _head_products(self, num_classes: int) -> int:
        return 2 * self.width * num_classes


Row = dict[str, Any]

MODELS: dict[str, Row] = {
    f"deit_{size}16": {**VIT[size], "patch_size": (16, 16)} for size in ("ti", "s", "b")
}
MODELS["deit_b16_384"] = {**MODELS["deit_b16"], "image_size": (384, 384)}
