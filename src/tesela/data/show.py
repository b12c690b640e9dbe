"""A grid picture of samples, as they are or as training sees them.

One row per class where there are few classes, else the first images in a random order; labels are written
above each tile. Odd: small images are enlarged without smoothing, so that their pixels can be counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from tesela.core.errors import DataError
from tesela.core.terminal import line_text
from tesela.data.config import AugmentConfig
from tesela.data.masks.targets import MaskTargets
from tesela.data.random import permutation
from tesela.data.scan import Unreadable, attempt
from tesela.data.source import Items
from tesela.imaging.color import as_rgb
from tesela.imaging.lettering import shortened
from tesela.imaging.mask import IGNORE
from tesela.imaging.overlay import overlaid
from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CAPTION, _LETTERS = 14, 10
_GAP = 4
_TILE = 96


def chosen(items: Items, count: int, *, seed: int = 0) -> list[int]:
    """Up to ``count`` items in random order, the classes taking turns."""
    order = permutation(seed, 0, len(items), "show")
    place = np.zeros(len(items), np.int64)
    for label in np.unique(items.targets):
        rows = order[items.targets[order] == label]
        place[rows] = np.arange(len(rows))
    return [int(row) for row in np.lexsort((items.targets, place))[:count]]


def grid(
    items: Items,
    labels: tuple[str, ...],
    spec: ImageSpec,
    *,
    count: int = 40,
    columns: int = 10,
    augment: AugmentConfig | None = None,
    seed: int = 0,
    masks: MaskTargets | None = None,
) -> Image.Image:
    """A picture of ``count`` images at the model's size; an unreadable one is a grey tile with its code.

    Args:
        items: where from.
        labels: class names.
        spec: the model's view.
        count: tiles.
        columns: tiles per row.
        augment: show them as epoch 0 of training would.
        seed: of choice and augmentation.
        masks: how the images' masks read, which are laid over them.
    """
    rows = chosen(items, count, seed=seed)
    views = [
        attempt(items, row, lambda row=row: fit_image(items.read(row, channels=spec.channels), spec))  # type: ignore[misc]
        for row in rows
    ]
    captions = [
        view.code if isinstance(view, Unreadable) else _caption(items, row, labels, masks)
        for row, view in zip(rows, views, strict=True)
    ]
    tiles = np.stack(
        [
            np.full((*spec.size, spec.channels), 128, np.uint8) if isinstance(view, Unreadable) else view
            for view in views
        ]
    )
    drawn = None
    if masks is not None:
        drawn = np.stack([_mask(items, row, masks, spec) for row in rows])
    if augment is not None:
        tiles, drawn = _augmented(tiles, drawn, augment, spec, rows, seed)
    if drawn is not None and masks is not None:
        colours = masks.colours
        tiles = np.stack([overlaid(tile, mask, colours) for tile, mask in zip(tiles, drawn, strict=True)])
    return draw(tiles, captions, columns=columns)


def _caption(items: Items, row: int, labels: tuple[str, ...], masks: MaskTargets | None) -> str:
    """The label, or the file's name where there is a mask in its place."""
    return labels[items.targets[row]] if masks is None else items.name(row).rpartition("/")[2]


def _mask(items: Items, row: int, masks: MaskTargets, spec: ImageSpec) -> NDArray[np.uint8]:
    """The fitted mask; all ignored where it cannot be read."""
    try:
        found: NDArray[np.uint8] = masks.read(items, np.array([row]), spec)[0]
        return found
    except DataError:
        return np.full(spec.size, IGNORE, np.uint8)


def _augmented(
    tiles: NDArray[np.uint8],
    masks: NDArray[np.uint8] | None,
    config: AugmentConfig,
    spec: ImageSpec,
    rows: list[int],
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Images (N, h, w, C) and their masks (N, h, w) as epoch 0 of training has them."""
    import torch

    from tesela.data.augment.augment import Augment

    augment, indices = Augment(config, spec), np.array(rows)
    images = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)))
    result = augment(images, seed=seed, epoch=0, indices=indices)
    if masks is not None:
        movement = augment.movement(spec.size, seed=seed, epoch=0, indices=indices)
        masks = movement.masks(torch.from_numpy(masks), outside=IGNORE).numpy()
    return np.ascontiguousarray(result.permute(0, 2, 3, 1).numpy()), masks


def draw(tiles: NDArray[np.uint8], captions: list[str], *, columns: int) -> Image.Image:
    """Tiles (N, h, w, C) with a caption above each, as one RGB picture on white."""
    height, width = tiles.shape[1:3]
    enlarge = max(1, _TILE // max(height, width))
    step_x, step_y = width * enlarge + _GAP, height * enlarge + _GAP + _CAPTION
    columns = min(columns, len(tiles))
    picture = Image.new("RGB", (columns * step_x + _GAP, -(-len(tiles) // columns) * step_y + _GAP), "white")
    pen = ImageDraw.Draw(picture)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = number % columns * step_x + _GAP, number // columns * step_y + _GAP
        image = Image.fromarray(as_rgb(tile))
        picture.paste(
            image.resize((width * enlarge, height * enlarge), Image.Resampling.NEAREST), (x, y + _CAPTION)
        )
        text, font = shortened(line_text(caption), _LETTERS, width * enlarge)
        pen.text((x, y + _CAPTION / 2), text, fill="black", font=font, anchor="lm")
    return picture
