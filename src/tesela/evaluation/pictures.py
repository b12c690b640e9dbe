"""Thumbnails of an evaluation, cut out while the data is at hand.

They are kept beside the rows in predictions.npz, so that a report can be written again without the data: a
fixed sample of 64 images, those the task picks, and 8 images at the model's own size for explanations.
Everything is chosen by position, so the same evaluation shows the same pictures.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from tesela.data.source import Items
    from tesela.tasks.task import Rows, Task

SAMPLE, SHOWN = 64, 8
THUMBNAIL = 96
"""The longer side of a thumbnail in pixels, at most."""


def choose_pictures(
    task: Task, rows: Rows, indices: npt.NDArray[np.int64], items: Items, spec: ImageSpec
) -> dict[str, npt.NDArray[Any]]:
    """Places, names and pixels of the images of each set, by their names in predictions.npz."""
    sample = random_places(len(indices))
    sets = {"sample": sample, **task.pictures(rows, sample), "shown": task.shown(rows, sample, most=SHOWN)}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, places in sets.items():
        view = _square_spec(spec) if name == "shown" else _thumbnail_spec(spec)
        arrays[name] = places
        arrays[f"{name}_names"] = np.array([items.name(int(indices[place])) for place in places], np.str_)
        arrays[f"{name}_images"] = _read(items, indices[places], view)
    return arrays


def random_places(count: int, *, most: int = SAMPLE) -> npt.NDArray[np.int64]:
    """Up to ``most`` places out of ``count``, the same each time."""
    return np.random.default_rng(0).permutation(count)[:most].astype(np.int64)


def _square_spec(spec: ImageSpec) -> ImageSpec:
    return dataclasses.replace(spec, resize="squash") if spec.resize == "none" else spec


def _thumbnail_spec(spec: ImageSpec) -> ImageSpec:
    """The model's view, scaled down to at most the size of a thumbnail."""
    scale = min(1.0, THUMBNAIL / max(spec.size))
    height, width = (max(1, round(side * scale)) for side in spec.size)
    return _square_spec(spec).at((height, width))


def _read(items: Items, indices: npt.NDArray[np.int64], spec: ImageSpec) -> npt.NDArray[np.uint8]:
    images = [
        fit_image(items.read(int(index), channels=spec.channels, size_hint=spec.size), spec)
        for index in indices
    ]
    return np.stack(images) if images else np.zeros((0, *spec.size, spec.channels), np.uint8)
