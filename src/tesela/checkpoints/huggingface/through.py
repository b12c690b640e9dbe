"""Outputs of an exported folder as transformers computes them, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.checkpoints.huggingface.backbones import BACKBONES, BackboneClass

if TYPE_CHECKING:
    from torch import Tensor


def through_transformers(folder: Path, images: Tensor, headless: bool) -> dict[str, Tensor]:
    """Logits of images (B, C, H, W), or a bare model's tokens, by "in transformers VERSION"; none without it.

    Odd: a segmenter's logits are those of its decoder there, and are upsampled here as the model does it.
    """
    import json

    import torch.nn.functional as F

    try:
        import transformers
        from transformers.utils import logging
    except ImportError:
        return {}
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    backbone = BACKBONES.get(kind)
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model: Any = getattr(transformers, kind).from_pretrained(folder).eval().float()
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
    if headless and backbone is not None:
        tokens = _tokens(model, images, backbone)
        return {} if tokens is None else {f"in transformers {transformers.__version__}": tokens}
    found = model(images)
    outputs: Tensor = found.last_hidden_state if headless else found.logits
    if outputs.ndim == 4 and headless:
        outputs = outputs.flatten(2).mT
    elif outputs.ndim == 4 and outputs.shape[2:] != images.shape[2:]:
        outputs = F.interpolate(outputs, size=images.shape[2:], mode="bilinear", align_corners=False)
    return {f"in transformers {transformers.__version__}": outputs}


def _tokens(model: Any, images: Tensor, backbone: BackboneClass) -> Tensor | None:
    """Tokens after the last norm (B, N, D); None of a model whose forward pass gives none."""
    import torch

    if backbone.family == "mae":
        if backbone.prefix:
            return None
        count = (images.shape[2] // model.config.patch_size) * (images.shape[3] // model.config.patch_size)
        model.config.mask_ratio = 0.0
        noise = torch.arange(count, dtype=torch.float32)[None]
        every: Tensor = model(images, noise=noise).last_hidden_state
        return every
    if backbone.head == "other" and backbone.family != "clip":
        return None
    found: Tensor = model(images).last_hidden_state
    if backbone.family == "clip":
        body = getattr(model, "vision_model", model)
        found = body.post_layernorm(found)
    return found
