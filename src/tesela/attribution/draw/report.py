"""Explanations as pictures, for the report of a run and for the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from tesela.attribution.draw.heatmap import overlay, to_original
from tesela.attribution.explain import explain
from tesela.attribution.methods.table import AUTO_METHOD
from tesela.attribution.question import Target
from tesela.core.errors import UsageError
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def explain_for_report(
    model: nn.Module,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    *,
    spec: ImageSpec | None = None,
    target: Target = None,
    method: str = AUTO_METHOD,
    side: int = 256,
) -> list[bytes]:
    """One PNG per image: the heat map of its predicted class laid over it.

    Args:
        model: a classifier.
        images: uint8 (H, W, C) each, at any size.
        spec: how the model sees an image; ``model.info.image`` if None.
        target: explain this class instead.
        method: one of ``tesela.attribution.methods.table.methods()`` or auto.
        side: smaller images are enlarged to about this.

    Raises:
        UsageError: there is no spec.
    """
    if len(images) == 0:
        return []
    view = spec or getattr(getattr(model, "info", None), "image", None)
    if not isinstance(view, ImageSpec):
        raise UsageError("this model does not say how it sees an image", hint="give spec=ImageSpec(...)")
    batch = torch.from_numpy(preprocess(list(images), view))
    maps = explain(model, batch, target, method).map[:, 0].cpu().numpy()
    pictures = []
    for image, heat in zip(images, maps, strict=True):
        whole, seen = to_original(heat, (image.shape[0], image.shape[1]), view)
        pictures.append(overlay(image, whole, seen=seen, side=side))
    return pictures
