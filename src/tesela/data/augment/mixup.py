"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch with itself in reverse order; targets become soft.

Which of the two, how much and where is a function of (seed, epoch, the batch's first index): a resumed epoch mixes alike.
One share for the whole batch, as in the recipes of DeiT.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tesela.data.config import AugmentConfig
from tesela.data.random import bits, uniforms


def soft_targets(targets: Tensor, num_classes: int) -> Tensor:
    """(B,) class indices as (B, K) float32 rows of one 1."""
    return torch.zeros(len(targets), num_classes, device=targets.device).scatter_(1, targets[:, None], 1.0)


def mix(
    images: Tensor,
    targets: Tensor,
    config: AugmentConfig,
    *,
    num_classes: int,
    seed: int,
    epoch: int,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Mix a batch.

    Args:
        images: (B, C, H, W), float32; changed in place.
        targets: (B,), class indices.
        config: alphas and probability.
        num_classes: K.
        seed: of the run.
        epoch: of the run.
        first: index of the batch's first image.

    Returns:
        Images and (B, K) float32 targets, each row summing to 1.
    """
    soft = soft_targets(targets, num_classes)
    key = np.array([first])
    chance, which, across, down = uniforms(seed, epoch, key, "mix", 4)[0]
    if chance >= config.mix_probability:
        return images, soft
    cut = config.cutmix > 0 and (config.mixup == 0 or which < 0.5)
    generator = np.random.Generator(np.random.Philox(key=bits(seed, epoch, key, "mix share", 2)[0]))
    alpha = config.cutmix if cut else config.mixup
    share = float(generator.beta(alpha, alpha))
    if cut:
        share = _paste(images, share, across, down)
    else:
        images.copy_(images * share + images.flip(0) * (1 - share))
    return images, soft * share + soft.flip(0) * (1 - share)


def _paste(images: Tensor, share: float, across: float, down: float) -> float:
    """Paste a rectangle of the reversed batch; return the share of the area that stayed."""
    height, width = images.shape[2:]
    side = np.sqrt(1 - share)
    top, bottom = _span(down, side, height)
    left, right = _span(across, side, width)
    images[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right].clone()
    return 1 - (bottom - top) * (right - left) / (height * width)


def _span(centre: float, side: float, length: int) -> tuple[int, int]:
    middle, half = int(centre * length), int(side * length) // 2
    return max(middle - half, 0), min(middle + half, length)
