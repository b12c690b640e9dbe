"""Which images a report shows, cut to thumbnails while the data is at hand, and their form in the page.

They are kept beside the probabilities in predictions.npz, so that a report can be written again without the data: a fixed
sample of 64, the 24 wrong predictions the model was surest of, and 8 images at the model's own size for explanations,
of as many classes as there are. Everything is chosen by position, so the same evaluation shows the same pictures.
"""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tesela.imaging.preprocess import fit
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from tesela.data.source import Items

SAMPLE, MISTAKES, SHOWN = 64, 24, 8
THUMBNAIL = 96
"""The longer side of a thumbnail in pixels, at most."""

Integers = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]


def choose_pictures(
    probabilities: npt.NDArray[Any], targets: Integers, indices: Integers, items: Items, spec: ImageSpec
) -> dict[str, npt.NDArray[Any]]:
    """Positions (rows of ``probabilities``), names and images of each set, by the names they have in predictions.npz."""
    small, full = _thumbnail_spec(spec), _square_spec(spec)
    sets = {
        "sample": (sample(len(targets)), small),
        "mistakes": (surest_mistakes(probabilities, targets), small),
    }
    sets["shown"] = (of_each_class(sets["sample"][0], targets), full)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, (positions, view) in sets.items():
        arrays[name] = positions
        arrays[f"{name}_names"] = np.array(
            [items.name(int(indices[place])) for place in positions], dtype=np.str_
        )
        arrays[f"{name}_images"] = _read(items, indices[positions], view)
    return arrays


def sample(count: int, *, most: int = SAMPLE) -> Integers:
    """Up to ``most`` positions drawn once and for all."""
    return np.random.default_rng(0).permutation(count)[:most].astype(np.int64)


def surest_mistakes(probabilities: npt.NDArray[Any], targets: Integers, *, most: int = MISTAKES) -> Integers:
    """Positions of wrong predictions, the most probable first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable") if len(wrong) else wrong
    return wrong[order][:most].astype(np.int64)


def of_each_class(positions: Integers, targets: Integers, *, most: int = SHOWN) -> Integers:
    """Up to ``most`` of ``positions``, going round the classes."""
    turn: dict[int, int] = {}
    ranked = []
    for order, place in enumerate(positions):
        label = int(targets[place])
        turn[label] = turn.get(label, 0) + 1
        ranked.append((turn[label], order, int(place)))
    return np.array([place for _, _, place in sorted(ranked)[:most]], dtype=np.int64)


def _square_spec(spec: ImageSpec) -> ImageSpec:
    return dataclasses.replace(spec, resize="squash") if spec.resize == "none" else spec


def _thumbnail_spec(spec: ImageSpec) -> ImageSpec:
    """The model's view, scaled down to a thumbnail where it is larger."""
    scale = min(1.0, THUMBNAIL / max(spec.size))
    height, width = (max(1, round(side * scale)) for side in spec.size)
    return dataclasses.replace(_square_spec(spec), height=height, width=width)


def _read(items: Items, indices: Integers, spec: ImageSpec) -> Images:
    images = [
        fit(items.read(int(index), channels=spec.channels, size_hint=spec.size), spec) for index in indices
    ]
    return np.stack(images) if images else np.zeros((0, *spec.size, spec.channels), np.uint8)


def png(image: Images) -> bytes:
    """A uint8 image (h, w, 1 or 3) as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        stream, format="PNG", optimize=True
    )
    return stream.getvalue()
