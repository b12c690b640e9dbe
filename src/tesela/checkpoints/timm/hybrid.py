"""Hybrids of timm: R26 or R50 before a Vision Transformer.

Odd: the root alone (``vit_tiny_r_s16_p8``) has no module of its own for the stem. Hybrids on timm's other
residual networks (``resnet26d``, ...) are another network, and refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tesela.checkpoints.rules import Rule, layer
from tesela.core.errors import WeightsError

_PLACE = "patch_embed.backbone."
#: First convolution of the root, with stages behind it and alone.
_ROOTS = (f"{_PLACE}stem.conv.weight", f"{_PLACE}conv.weight")
#: Width of the published roots.
_BASE = 64
#: Units of the residual network -> an architecture of timm that has them, and whose arguments do the rest.
HYBRIDS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
#: What no argument changes there.
FITTING_HYBRIDS: dict[str, tuple[Any, ...]] = {
    "stages": tuple(HYBRIDS),
    "width_factor": (1.0,),
    "root": ("large",),
    "norm_groups": (32,),
    "arithmetic": ("timm",),
    "norm": ("pre",),
    "mlp": ("plain",),
    "embedded_norm": ("none",),
}


def hybrid_fields(tensors: Mapping[str, Tensor], *, named: bool | None) -> dict[str, Any]:
    """Fields of the residual network, and ``channels``; empty where there is none.

    Args:
        tensors: the checkpoint.
        named: whether the architecture is a hybrid; None where nothing names one.

    Raises:
        WeightsError: it is another residual network, units are missing, or the architecture has none.
    """
    root = next((name for name in _ROOTS if name in tensors), None)
    if root is None and (named or any(name.startswith(_PLACE) for name in tensors)):
        raise WeightsError(
            "the hybrid has another residual network before its patches than R26 and R50, which is not "
            "computed here",
            hint="hybrids such as vit_small_r26_s32_224 and vit_base_r50_s16_224 are",
        )
    if root is None:
        return {}
    if named is False:
        raise WeightsError(
            f"the config names an architecture without a residual network, and the tensors have {root}",
            hint="use the config.json that came with the weights",
        )
    pattern = re.compile(rf"{re.escape(_PLACE)}stages\.(\d+)\.blocks\.(\d+)\.conv1\.weight")
    units = sorted((int(one[1]), int(one[2])) for name in tensors if (one := pattern.fullmatch(name)))
    stages = tuple(sum(stage == index for stage, _ in units) for index in sorted({one for one, _ in units}))
    if units != [(stage, unit) for stage, count in enumerate(stages) for unit in range(count)]:
        raise WeightsError(
            "the checkpoint lacks whole units or stages of its residual network",
            hint="the file is incomplete; download it again",
        )
    kernel = tensors[root]
    return {
        "channels": kernel.shape[1],
        "stages": stages,
        "width_factor": kernel.shape[0] / _BASE,
        "root": "large",
        "arithmetic": "timm",
    }


def hybrid_step(fields: Mapping[str, Any]) -> int:
    """Pixels of a cell of the last feature map; 1 without a residual network."""
    return 4 << max(0, len(fields["stages"]) - 1) if "stages" in fields else 1


def hybrid_root(stages: Sequence[int]) -> str:
    """Name of the module that the image goes into."""
    return _ROOTS[0 if stages else 1].removesuffix(".weight")


def hybrid_rules(stages: tuple[int, ...]) -> Iterable[Rule]:
    """The names of the residual network."""
    stem = f"{_PLACE}stem." if stages else _PLACE
    yield from layer("patches.projection", "patch_embed.proj")
    yield Rule(own="patches.backbone.root.conv.weight", foreign=(f"{stem}conv.weight",))
    yield from layer("patches.backbone.root.norm", f"{stem}norm")
    for stage in range(len(stages)):
        own, theirs = f"patches.backbone.stages.{stage}.{{i}}.", f"{_PLACE}stages.{stage}.blocks.{{i}}."
        for number in (1, 2, 3):
            yield Rule(own=f"{own}conv{number}.weight", foreign=(f"{theirs}conv{number}.weight",))
            yield from layer(f"{own}norm{number}", f"{theirs}norm{number}")
        yield Rule(own=f"{own}projection.weight", foreign=(f"{theirs}downsample.conv.weight",))
        yield from layer(f"{own}projection_norm", f"{theirs}downsample.norm")
