"""Interface of data sources: named splits of items, each readable by its number.

Items are read lazily and pickle small, for loader workers get a copy: arrays are opened again in the worker.
Odd: ``read`` without arguments gives an image as it is stored (1 channel for grey sets such as MNIST, 3 for
encoded files); a loader asks for what its model takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tesela.data.masks.coding import MaskCoding

#: Texts (N,) by name.
Columns: TypeAlias = "Mapping[str, NDArray[np.str_]]"
#: The splits that ``open_source`` guarantees, in this order.
SPLITS = ("train", "val", "test")


def decode_limits(items: Items) -> DecodeLimits:
    """Limits within which the files of some items are decoded."""
    base = items.items if isinstance(items, Selection) else items
    found: DecodeLimits = getattr(base, "limits", LOCAL_LIMITS)
    return found


def groups_of(items: Items) -> tuple[NDArray[np.int64] | None, int]:
    """File (N,) in which each of some items lies, and how many files are mixed; None where order is free."""
    base: Any = items.items if isinstance(items, Selection) else items
    groups: NDArray[np.int64] | None = getattr(base, "groups", None)
    if groups is None:
        return None, 0
    return groups[items.rows] if isinstance(items, Selection) else groups, int(base.buffer)


def fetch_rows(items: Items, rows: NDArray[np.int64]) -> None:
    """Read the encoded images of a batch at once, where they are in object storage.

    Raises:
        StorageError: it does not give them.
    """
    base: Any = items.items if isinstance(items, Selection) else items
    if hasattr(base, "fetch"):
        base.fetch((items.rows[rows] if isinstance(items, Selection) else rows).tolist())


def set_limits(source: Source, limits: DecodeLimits) -> None:
    """Decode the files of a source within other limits from now on."""
    for items in source.splits.values():
        base: Any = items.items if isinstance(items, Selection) else items
        if hasattr(base, "limits"):
            base.limits = limits


class Items(Protocol):
    """Images with targets, by number."""

    targets: NDArray[np.int64]
    #: Further values of each image as texts (N,), by name, such as the other columns of a manifest.
    columns: Columns

    def __len__(self) -> int:
        """How many."""
        ...

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """The pixels (H, W, C), uint8, at native size.

        A hint permits a large JPEG to come back smaller, never below it.

        Raises:
            ImageError: it cannot be decoded.
        """
        ...

    def name(self, index: int) -> str:
        """A stable name: a path below the source, or a file and a row."""
        ...

    def raw(self, index: int) -> bytes | None:
        """The encoded file, or None where pixels are stored plainly."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of images with labels.

    Attributes:
        name: what it is called in reports.
        kind: folder, masks, coco, idx, parquet, manifest or digits.
        labels: class names; a target is an index into them.
        splits: items by split name; after ``open_source`` train, val and test.
        channels: channels as stored: 1 where the whole source is grey.
        cut: splits that were cut out of train because the source had none.
        ignored: files that are no images, listed by ``tesela data check``.
        masks: how masks read, where each image has one.
        notes: remarks for people on how the source was read.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    splits: Mapping[str, Items]
    channels: int = 3
    cut: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=(), repr=False)
    masks: MaskCoding | None = None
    notes: tuple[str, ...] = ()

    def with_splits(self, splits: Mapping[str, Items], *, cut: tuple[str, ...]) -> Source:
        """The same source, split otherwise."""
        return replace(self, splits=splits, cut=cut)


class Selection:
    """Some rows of other items, in a given order."""

    def __init__(self, items: Items, rows: Sequence[int] | NDArray[np.int64]) -> None:
        chosen = np.asarray(rows, np.int64)
        nested = isinstance(items, Selection)
        self.items: Items = items.items if nested else items  # type: ignore[attr-defined]
        self.rows: NDArray[np.int64] = items.rows[chosen] if nested else chosen  # type: ignore[attr-defined]
        self.targets = items.targets[chosen]
        self.columns: Columns = {name: values[chosen] for name, values in items.columns.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """As Items.read."""
        return self.items.read(int(self.rows[index]), channels=channels, size_hint=size_hint)

    def name(self, index: int) -> str:
        """As Items.name."""
        return self.items.name(int(self.rows[index]))

    def raw(self, index: int) -> bytes | None:
        """As Items.raw."""
        return self.items.raw(int(self.rows[index]))


class ArrayItems:
    """Pixels in one uint8 array (N, H, W, C).

    Args:
        images: all of them.
        targets: (N,), class indices.
        prefix: names are ``prefix#row``.
    """

    def __init__(self, images: NDArray[np.uint8], targets: NDArray[np.integer], *, prefix: str) -> None:
        self.images = images
        self.targets = targets.astype(np.int64)
        self.columns: Columns = {}
        self.prefix = prefix

    def __len__(self) -> int:
        return len(self.targets)

    def read(
        self,
        index: int,
        *,
        channels: int | None = None,
        size_hint: tuple[int, int] | None = None,  # noqa: ARG002
    ) -> NDArray[np.uint8]:
        """As Items.read; the hint is of no use to plain pixels."""
        from tesela.imaging.color import with_channels

        image = self.images[index]
        return with_channels(image, channels or image.shape[2])

    def name(self, index: int) -> str:
        """As Items.name."""
        return f"{self.prefix}#{index}"

    def raw(self, index: int) -> bytes | None:  # noqa: ARG002
        """None: pixels are stored plainly."""
        return None
