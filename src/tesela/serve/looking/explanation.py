"""Heat map of one image for the API, without the image's metadata.

Torch is imported when the first explanation is asked for; ``served`` offers this only where a torch network
was loaded.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tesela.attribution.draw.heatmap import colour_table, stretched, to_original
from tesela.core.errors import UsageError
from tesela.imaging.mask import box_in_view
from tesela.imaging.preprocess import normalize, placement
from tesela.metrics.probability import softmax
from tesela.runtime.predictor import Predictor
from tesela.tasks.score import Score, ranked

#: The picture's longer side, at most; a browser scales it to the image.
SHOWN_SIDE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedImage:
    """A heat map with what belongs to it.

    Attributes:
        method: how it was computed.
        target: the explained class; of a segmenter with its mean probability over the explained pixels.
        scores: the most probable classes; of a segmenter by their means over the image.
        grid: rows and columns of patches.
        tokens: one value per patch, brought to 0..1; what speaks against the class is 0.
        prefix_mass: the share that lies on tokens that are no patches.
        width: of the original image.
        height: of the original image.
        heatmap: PNG with transparency.
    """

    method: str
    target: Score
    scores: tuple[Score, ...]
    grid: tuple[int, int]
    tokens: list[list[float]]
    prefix_mass: float | None
    width: int
    height: int
    heatmap: bytes


def explain_image(
    network: Any,
    predictor: Predictor,
    view: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    target: int | None,
    method: str,
    top: int,
    region: tuple[int, int, int, int] | None,
    options: Mapping[str, Any],
) -> ExplainedImage:
    """Classify and explain one image.

    Args:
        network: the torch module.
        predictor: the loaded bundle.
        view: the image as the model wants it, (h, w, C), uint8.
        size: (height, width) of the original.
        target: number of the class; the predicted one where None, of a segmenter that of most pixels.
        method: name of the method.
        top: how many classes to list.
        region: (left, top, width, height) of a segmenter's pixels to explain; those of the class if None.
        options: layer, head, discard and residual of ``tesela.attribution.explain``; None for the usual.

    Raises:
        UsageError: the method or an option cannot be used with this model.
    """
    import torch

    from tesela.attribution.explain import explain

    spec, labels = predictor.info.image, predictor.info.labels
    batch = normalize(view[None], spec)
    probabilities, of_pixels = label_probabilities(predictor, batch, size)
    if target is None and not of_pixels:
        target = int(probabilities.argmax())
    given = {name: value for name, value in options.items() if value is not None}
    if region is not None:
        given["region"] = torch.from_numpy(box_in_view(region, size, spec))
    found = explain(network, torch.from_numpy(batch), target=target, method=method, **given)
    index = int(found.targets[0, 0])
    height, width = size
    tokens = found.tokens[0, 0].numpy()
    return ExplainedImage(
        method=found.method,
        target=Score(
            label=labels[index],
            index=index,
            probability=float(found.probabilities[0, 0] if of_pixels else probabilities[index]),
        ),
        scores=ranked(probabilities, labels, top=top),
        grid=(tokens.shape[0], tokens.shape[1]),
        tokens=[[round(float(value), 5) for value in row] for row in stretched(tokens)],
        prefix_mass=float(found.prefix_mass[0, 0]),
        width=width,
        height=height,
        heatmap=heat_picture(found.map[0, 0].numpy(), (height, width), predictor),
    )


def label_probabilities(
    predictor: Predictor, batch: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.float64], bool]:
    """(K,) probability of each label for one normalised image (1, C, h, w) of a (height, width).

    With it whether they are those of pixels: the means over the image, of a segmenter.

    Raises:
        UsageError: the task gives none.
    """
    outputs = predictor.backend.logits(batch)
    found = predictor.task.probabilities(outputs)
    if found is not None:
        return found[0], False
    if outputs.ndim != 4:
        raise UsageError(f"the task {predictor.task.name} has no labels to explain", hint="give a classifier")
    scale = outputs.shape[2] / batch.shape[2], outputs.shape[3] / batch.shape[3]
    top, left, height, width = placement(size, predictor.info.image).view
    rows = slice(int(top * scale[0]), max(1, round((top + height) * scale[0])))
    columns = slice(int(left * scale[1]), max(1, round((left + width) * scale[1])))
    return softmax(outputs[0, :, rows, columns].reshape(outputs.shape[1], -1).T).mean(0), True


def heat_picture(view: NDArray[np.float32], size: tuple[int, int], predictor: Predictor) -> bytes:
    """The map as a PNG with transparency, in the shape of the original image (height, width)."""
    shrink = max(1.0, max(size) / SHOWN_SIDE)
    small = max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))
    if predictor.info.image.resize == "none":
        small = size
    heat, seen = to_original(view, small, predictor.info.image)
    level = np.where(seen, stretched(heat, seen), 0.0)
    colour = colour_table("inferno")[(level * 255).round().astype(np.uint8)]
    cover = (np.sqrt(level) * 215).round().astype(np.uint8)[..., None]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([colour, cover], axis=2), "RGBA").save(buffer, "PNG")
    return buffer.getvalue()
