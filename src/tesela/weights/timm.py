"""timm's VisionTransformer: names of its tensors, in both directions.

Shapes agree but for the fused qkv, which is fused in both and in the same order. timm has no name for a distillation token's
head or for pre-logits in current versions; what has no place is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tesela.weights.names import Rule, Tensors, layer, to_foreign, to_own

VIT: tuple[Rule, ...] = (
    *layer("patches", "patch_embed.proj"),
    Rule(own="prefix.class_token", foreign=("cls_token",)),
    Rule(own="positions.table", foreign=("pos_embed",)),
    *layer("blocks.{i}.norm1", "blocks.{i}.norm1"),
    *layer("blocks.{i}.attention.qkv", "blocks.{i}.attn.qkv"),
    *layer("blocks.{i}.attention.out", "blocks.{i}.attn.proj"),
    *layer("blocks.{i}.norm2", "blocks.{i}.norm2"),
    *layer("blocks.{i}.mlp.expand", "blocks.{i}.mlp.fc1"),
    *layer("blocks.{i}.mlp.contract", "blocks.{i}.mlp.fc2"),
    *layer("norm", "norm"),
    *layer("head.linear", "head"),
)


def vit_tensors(foreign: Mapping[str, Tensor]) -> Tensors:
    """Tensors of a timm VisionTransformer under our names.

    Raises:
        WeightsError: naming what is unknown or missing.
    """
    return to_own(foreign, VIT, source="the timm checkpoint")


def vit_to_timm(own: Mapping[str, Tensor]) -> Tensors:
    """Tensors of our ViT under timm's names.

    Raises:
        WeightsError: naming what has no place there.
    """
    return to_foreign(own, VIT, target="timm's VisionTransformer")
