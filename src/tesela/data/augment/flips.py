"""Flips of images: the views that an image has where augmentation at most flips it."""

from __future__ import annotations

from torch import Tensor

from tesela.data.config import AugmentConfig

#: (left-right, upside-down)
View = tuple[bool, bool]


def views(augment: AugmentConfig | None) -> list[View]:
    """The views of an image, the plain one first."""
    across = [False, True] if augment is not None and augment.hflip else [False]
    down = [False, True] if augment is not None and augment.vflip else [False]
    return [(left, up) for left in across for up in down]


def seen(images: Tensor, view: View) -> Tensor:
    """Images (B, C, H, W) in a view."""
    axes = [axis for axis, flipped in zip((3, 2), view, strict=True) if flipped]
    return images.flip(axes) if axes else images
