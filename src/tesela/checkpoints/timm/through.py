"""Outputs of an exported folder as timm computes them, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def through_timm(folder: Path, images: Tensor, headless: bool) -> dict[str, Tensor]:
    """Logits of images (B, C, H, W), or a bare model's tokens, by "in timm VERSION"; none without it."""
    try:
        from timm import __version__, create_model
    except ImportError:
        return {}
    model = create_model(f"local-dir:{folder}", pretrained=True).eval().float()
    outputs: Tensor = model.forward_features(images) if headless else model(images)
    if outputs.ndim == 4:  # a map: (B, H, W, D) of Swin, else (B, D, H, W)
        last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        outputs = outputs.flatten(1, 2) if last else outputs.flatten(2).mT
    return {f"in timm {__version__}": outputs}
