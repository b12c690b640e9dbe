"""timm's preprocessing for evaluation, step by step after its definition, with Pillow alone.

``transforms_imagenet_eval`` of timm 1.0 (timm/data/transforms_factory.py) with torchvision's Resize and
CenterCrop, and timm's ResizeKeepRatio and CenterCropOrPad. Neither library is a dependency of the tests.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def timm_view(
    pixels: np.ndarray,
    size: tuple[int, int],
    *,
    crop_pct: float,
    crop_mode: str = "center",
    interpolation: str = "bicubic",
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
) -> np.ndarray:
    """The view (h, w, 3), uint8, of an image (H, W, 3) before it is normalised."""
    image = Image.fromarray(pixels)
    scale = math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)
    width, height = image.size
    if crop_mode == "squash":
        resized = scale
    elif crop_mode == "border":
        resized = keep_ratio((height, width), scale, longest=True)
    elif scale[0] == scale[1]:
        short, long = (width, height) if width <= height else (height, width)
        new_short, new_long = scale[0], int(scale[0] * long / short)
        resized = (new_long, new_short) if width <= height else (new_short, new_long)
    else:
        resized = keep_ratio((height, width), scale, longest=False)
    image = image.resize((resized[1], resized[0]), Image.Resampling(FILTERS[interpolation]))
    return center_crop_or_pad(np.asarray(image), size, fill=[round(255 * value) for value in mean])


def keep_ratio(image: tuple[int, int], target: tuple[int, int], *, longest: bool) -> tuple[int, int]:
    """ResizeKeepRatio: the longest side within the target, or the shortest one on it."""
    ratios = image[0] / target[0], image[1] / target[1]
    ratio = max(ratios) if longest else min(ratios)
    return round(image[0] / ratio), round(image[1] / ratio)


def center_crop_or_pad(image: np.ndarray, size: tuple[int, int], *, fill: list[int]) -> np.ndarray:
    """CenterCropOrPad; of an image that is large enough, CenterCrop."""
    before = [max(0, (side - own) // 2) for side, own in zip(size, image.shape, strict=False)]
    after = [max(0, (side - own + 1) // 2) for side, own in zip(size, image.shape, strict=False)]
    padded = np.full(
        (image.shape[0] + before[0] + after[0], image.shape[1] + before[1] + after[1], 3), fill, np.uint8
    )
    padded[before[0] : before[0] + image.shape[0], before[1] : before[1] + image.shape[1]] = image
    top = round((padded.shape[0] - size[0]) / 2.0)
    left = round((padded.shape[1] - size[1]) / 2.0)
    return padded[top : top + size[0], left : left + size[1]]
