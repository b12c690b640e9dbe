"""Pictures of attention: an image beside what the embedding looks at in the last block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.imaging.spec import ImageSpec
from tesela.layers.trace import Trace
from tesela.tasks.pretraining.patches import pixel_values


def attention_picture(model: nn.Module, images: Tensor, spec: ImageSpec) -> list[NDArray[np.uint8]]:
    """Each image (H, W, C) beside its attention, as brightness; the image alone where nothing attends.

    The rows of the class token, or of all patches where there is none, averaged over the heads of the last
    attention that sees all patches, and divided by their largest value.

    Args:
        model: an embedder.
        images: (B, C, H, W), normalised.
        spec: of the images.
    """
    values = pixel_values(images, spec)
    plain = [one.permute(1, 2, 0).byte().cpu().numpy() for one in values]
    weights = _last_weights(model, images)
    if weights is None:
        return plain
    rows, columns = model.grid((images.shape[2], images.shape[3]))  # type: ignore[operator]
    maps = weights.view(len(images), 1, rows, columns)
    maps = F.interpolate(maps / maps.amax((2, 3), keepdim=True), size=images.shape[2:], mode="nearest")
    shown = (maps * values).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [np.concatenate(pair, axis=1) for pair in zip(plain, shown, strict=True)]


def _last_weights(model: Any, images: Tensor) -> Tensor | None:
    """(B, n) attention to each patch."""
    trace = Trace(keep=lambda _: False)
    model(images, trace=trace)
    rows, columns = model.grid((images.shape[2], images.shape[3]))
    prefix, patches = model.prefix_tokens, rows * columns
    whole = [record for record in trace.attentions.values() if record.places is None]
    fitting = [record for record in whole if record.k.shape[2] == prefix + patches]
    if not fitting:
        return None
    dense = fitting[-1].dense().float().mean(1)  # (B, N, N)
    asked = dense[:, :1] if prefix else dense
    found: Tensor = asked.mean(1)[:, prefix:]
    return found
