"""Architectures of timm that are VisionTransformers, and what only their names say.

A name stands for arguments of timm's constructor that config.json does not repeat. Those that no tensor shows
(activation, heads, where the norms stand) are kept here; the rest is read off the tensors.
"""

from __future__ import annotations

import re
from typing import Any

from tesela.core.errors import WeightsError

_SIZES = (
    "tiny|small|base|large|huge|giant|gigantic|medium|mediumd|betwixt|wee|little|so400m|so150m|so150m2|"
    "giantopt|xsmall"
)
_KNOWN = re.compile(
    rf"vit_({_SIZES})_patch\d+(_plus)?(_siglip)?(_reg\d)?(_gap|_map)?(_dinov2|_tipsv2)?(_\d+)?"
    r"(_sam|_dino|_miil)?(_in21k)?"
    r"|vit_small_patch16_36x1_224|vit_intern300m_patch14_448|test_vit[23]?"
    r"|(vit_)?deit_(tiny|small|base)(_distilled)?_patch16_\d+"
    r"|deit3_(small|medium|base|large|huge)_patch\d+_\d+"
    r"|eva_large_patch14_\d+|eva_giant_patch14_\d+|flexivit_(small|base|large)"
)
#: SigLIP's models with the tanh approximation; the others have the exact GELU.
_TANH = re.compile(
    r"vit_base_patch32_siglip(_gap)?_256|vit_large_patch16_siglip(_gap)?_512"
    r"|vit_(so400m|giantopt)_patch16_siglip(_gap)?_\d+"
)
#: Heads that are not 64 wide, where the width does not tell them.
_HEADS = ((r"vit_giantopt_.*|vit_base_patch16_gap_224", 16), (r"test_vit2?", 2), (r"test_vit3", 3))
#: Heads of timm's sizes, which stay where only the width is stated otherwise.
_SIZED_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}


def sized_heads(name: str) -> int | None:
    """The heads of the size in a name of timm, whatever the width; None for rarer sizes."""
    return next((heads for size, heads in _SIZED_HEADS.items() if f"_{size}_" in name), None)


def architecture_arguments(name: str) -> dict[str, Any]:
    """The arguments of a name of timm that no tensor shows; others are read off the tensors.

    Args:
        name: as config.json or a training state gives it; a tag behind a dot makes no difference.

    Raises:
        WeightsError: it is no VisionTransformer, or one that computes what ours does not.
    """
    base = name.partition(".")[0]
    if _KNOWN.fullmatch(base) is None:
        raise WeightsError(
            f"the architecture {name!r} of timm is not known, and may compute other than a plain "
            "VisionTransformer",
            hint="known are timm's vit_*, deit_*, deit3_*, eva_large_* and flexivit_* with pre-norm blocks",
        )
    found: dict[str, Any] = {}
    if _TANH.fullmatch(base):
        found["act_layer"] = "gelu_tanh"
    if base == "test_vit3":
        found["pool_include_prefix"] = True
    heads = next((count for pattern, count in _HEADS if re.fullmatch(pattern, base)), None)
    return found if heads is None else found | {"num_heads": heads}
