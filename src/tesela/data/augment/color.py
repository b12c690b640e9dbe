"""Colour operations on batches, one strength per image; uint8 in, uint8 out.

As Pillow's ImageEnhance and ImageOps do them.

All sums over an image are whole numbers and all float steps are single operations per pixel, so the result
does not depend on the batch around it. Odd: results are rounded, where Pillow and torchvision cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Strengths = NDArray[np.float64]

#: ITU-R 601 luma in 16-bit fixed point.
_LUMA = (19595, 38470, 7471)


def grey(images: Tensor) -> Tensor:
    """(B, 1, H, W), uint8: the luma of RGB images; grey ones as they are."""
    if images.shape[1] == 1:
        return images
    wide = images.to(torch.int32)
    return ((wide[:, 0:1] * _LUMA[0] + wide[:, 1:2] * _LUMA[1] + wide[:, 2:3] * _LUMA[2] + 0x8000) >> 16).to(
        torch.uint8
    )


def brightness(images: Tensor, factors: Strengths) -> Tensor:
    """0 is black, 1 the image."""
    return _blend(images, torch.zeros((), device=images.device), factors)


def contrast(images: Tensor, factors: Strengths) -> Tensor:
    """0 is the mean grey, 1 the image."""
    luma = grey(images).flatten(1)
    mean = luma.sum(1, dtype=torch.int64).to(torch.float64) / luma.shape[1]
    return _blend(images, mean.to(torch.float32)[:, None, None, None], factors)


def saturation(images: Tensor, factors: Strengths) -> Tensor:
    """0 is grey, 1 the image."""
    return images if images.shape[1] == 1 else _blend(images, grey(images).to(torch.float32), factors)


def sharpness(images: Tensor, factors: Strengths) -> Tensor:
    """0 is smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, 1 the image; the outermost pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    wide = images.to(torch.int32)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smooth = images.to(torch.float32)
    smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.float32)
    return _blend(images, smooth, factors)


def posterize(images: Tensor, kept: Strengths) -> Tensor:
    """Keep the highest ``kept`` bits, 1..8."""
    masks = (0xFF << (8 - kept.astype(np.int64))) & 0xFF
    return images & _column(masks.astype(np.uint8), images)


def solarize(images: Tensor, thresholds: Strengths) -> Tensor:
    """Invert what is at or above the threshold."""
    return torch.where(images.to(torch.float32) >= _column(thresholds, images), 255 - images, images)


def autocontrast(images: Tensor, _: Strengths) -> Tensor:
    """Stretch each channel to 0..255; one of a single value stays."""
    low, high = (extreme.to(torch.float32) for extreme in torch.aminmax(images.flatten(2), dim=2))
    span = (high - low)[:, :, None, None]
    stretched = (images.to(torch.float32) - low[:, :, None, None]) * (255 / span.clamp(min=1))
    return torch.where(span > 0, _rounded(stretched), images)


def equalize(images: Tensor, _: Strengths) -> Tensor:
    """Flatten each channel's histogram, by the rule of Pillow's ImageOps.equalize."""
    batch, channels = images.shape[:2]
    planes = images.reshape(batch * channels, -1).to(torch.int64)
    counts = torch.zeros(len(planes), 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    last = 255 - (counts.flip(1) > 0).to(torch.int8).argmax(1, keepdim=True)
    step = (planes.shape[1] - counts.gather(1, last)) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)
    result = torch.where(step > 0, table.gather(1, planes), planes.to(torch.uint8))
    return result.view_as(images)


def jitter(images: Tensor, factors: Strengths) -> Tensor:
    """Brightness, contrast, saturation, hue in this order.

    Args:
        images: (B, C, H, W), uint8.
        factors: (B, 4); the hue's is a share of the full circle.
    """
    images = contrast(brightness(images, factors[:, 0]), factors[:, 1])
    return hue(saturation(images, factors[:, 2]), factors[:, 3])


def hue(images: Tensor, turns: Strengths) -> Tensor:
    """Turn colours around the grey axis at constant luma (a rotation of the YIQ colour plane)."""
    if images.shape[1] == 1 or not turns.any():
        return images
    matrices = hue_matrices(turns)
    red, green, blue = (images[:, channel].to(torch.float32) for channel in range(3))
    result = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    for channel in range(3):
        weights = [_column(matrices[:, channel, other], red) for other in range(3)]
        result[:, channel] = _rounded(red * weights[0] + green * weights[1] + blue * weights[2])
    return result


def hue_matrices(turns: Strengths) -> NDArray[np.float64]:
    """(B, 3, 3) matrices on RGB: YIQ, a rotation of (I, Q), and back."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    turn = np.tile(np.eye(3), (len(turns), 1, 1))
    angle = 2 * np.pi * turns
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    return np.asarray(np.linalg.inv(to_yiq) @ turn @ to_yiq)


def _blend(images: Tensor, other: Tensor, factors: Strengths) -> Tensor:
    """Each image moved away from ``other``: other + factor * (image - other)."""
    weights = _column(factors, images)
    return _rounded(images.to(torch.float32) * weights + other * (1 - weights))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).clamp_(0, 255).to(torch.uint8)


def _column(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """One value per image, shaped to spread over ``like``."""
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device).view(-1, *(1,) * (like.ndim - 1))
