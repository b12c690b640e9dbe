"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch with its reverse.

Targets become soft.

Which of the two, how much and where is a function of (seed, epoch, the batch's first index): a resumed epoch
mixes alike. One share for the whole batch, as in the recipes of DeiT.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tesela.data.config import AugmentConfig
from tesela.data.random import bits, uniforms


def mix_images(images: Tensor, config: AugmentConfig, *, seed: int, epoch: int, first: int) -> float:
    """Mix a batch of images with itself in reverse order, in place.

    Args:
        images: (B, C, H, W), float32; changed in place.
        config: alphas and probability.
        seed: of the run.
        epoch: of the run.
        first: index of the batch's first image.

    Returns:
        the share of each image that is its own, by which its targets are mixed; 1 where the batch stays
        unmixed.
    """
    key = np.array([first])
    chance, which, across, down = uniforms(seed, epoch, key, "mix", 4)[0]
    if chance >= config.mix_probability:
        return 1.0
    cut = config.cutmix > 0 and (config.mixup == 0 or which < 0.5)
    generator = np.random.Generator(np.random.Philox(key=bits(seed, epoch, key, "mix share", 2)[0]))
    alpha = config.cutmix if cut else config.mixup
    share = float(generator.beta(alpha, alpha))
    if cut:
        return _paste(images, share, across, down)
    images.copy_(images * share + images.flip(0) * (1 - share))
    return share


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
