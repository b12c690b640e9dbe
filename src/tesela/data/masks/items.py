"""Items with masks, and the reading of masks through selections of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tesela.core.errors import DataError, ImageError
from tesela.core.pathnames import path_text
from tesela.data.source import Items, Selection, Source
from tesela.data.sources.folder import FileItems
from tesela.imaging.mask import decode_mask, mask_palette

if TYPE_CHECKING:
    from numpy.typing import NDArray


@runtime_checkable
class HasMasks(Protocol):
    """Items that have a mask for each image."""

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Stored values (H, W), or colours (H, W, 3).

        Raises:
            ImageError: it cannot be decoded.
        """

    def mask_name(self, index: int) -> str:
        """A stable name."""

    def mask_colours(self, index: int) -> list[tuple[int, int, int]]:
        """Colours by stored value, where the mask brings them."""


class MaskedFiles(FileItems):
    """Image files with a mask file each.

    Args:
        root: of all paths.
        pairs: image and mask, each below the root.
    """

    def __init__(self, root: Path, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__(root, [image for image, _ in pairs], [0] * len(pairs))
        self.masks = tuple(mask for _, mask in pairs)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """As HasMasks.mask."""
        return decode_mask(self.root / self.masks[index])

    def mask_name(self, index: int) -> str:
        """The path below the root, as text."""
        return path_text(self.masks[index])

    def mask_colours(self, index: int) -> list[tuple[int, int, int]]:
        """The file's palette."""
        return mask_palette(self.root / self.masks[index])


def masked(items: Items) -> HasMasks | None:
    """What holds the masks behind a selection; None if there are none."""
    base: Any = items.items if isinstance(items, Selection) else items
    return base if isinstance(base, HasMasks) else None


def has_masks(source: Source) -> bool:
    """Whether all splits have masks."""
    return bool(source.splits) and all(masked(items) is not None for items in source.splits.values())


def stored_mask(items: Items, index: int) -> tuple[NDArray[np.uint8], str]:
    """The stored mask of an image, and its name.

    Raises:
        DataError: it cannot be decoded.
    """
    base = masked(items)
    assert base is not None
    row = int(items.rows[index]) if isinstance(items, Selection) else index
    name = base.mask_name(row)
    try:
        return base.mask(row), name
    except ImageError as error:
        raise DataError(f"the mask {name}: {error.message}", hint=error.hint) from error
