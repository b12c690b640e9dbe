"""Official checkpoints of MAE: timm's names, beside those of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tesela.checkpoints.state import Weights

#: What its code does to images, in timm's words: that of ImageNet.
_IMAGES: dict[str, Any] = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
}


def is_mae(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file without a config is one of MAE.

    It has a decoder, or a class token that is not read and a norm of the mean of the patches.
    """
    decoder = "decoder_embed.weight" in tensors or "decoder_pos_embed" in tensors
    tuned = "cls_token" in tensors and "fc_norm.weight" in tensors and "norm.weight" not in tensors
    return "patch_embed.proj.weight" in tensors and (decoder or tuned)


def mae_weights(found: Weights) -> Weights:
    """The encoder with its classifier, and the preprocessing of MAE's own code."""
    aside = sorted(name for name in found.tensors if name == "mask_token" or name.startswith("decoder_"))
    kept = {name: tensor for name, tensor in found.tensors.items() if name not in aside}
    notes = [*found.notes, "the file says no preprocessing: that of MAE's own code is assumed, of ImageNet"]
    if aside:
        notes.append(
            f"left aside, since it is used while training alone: {len(aside)} tensors of the decoder"
        )
    facts = {**found.facts, "pretrained_cfg": {**_IMAGES, **found.facts.get("pretrained_cfg", {})}}
    return replace(found, tensors=kept, notes=tuple(notes), facts=facts)
