"""IDX files, the format of MNIST and Fashion-MNIST, with or without ``.gz``.

A header, then plain bytes.

Odd: the format says nothing of labels, so classes are named by their numbers. Workers read the file again
instead of receiving a copy.
"""

from __future__ import annotations

import glob
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.source import ArrayItems, Items, Source
from tesela.data.sources.layout.split_names import settled, split_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Prefixes that say a split in their own way.
PREFIXES = {"t10k": "test"}
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Raises:
        DataError: the file is damaged, cut short, or of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short", hint="download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE:
        raise DataError(
            f"{path} is no IDX file of unsigned bytes", hint="the first bytes of MNIST's files are 00 00 08"
        )
    rank = data[3]
    shape = (
        tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
        if len(data) >= 4 + 4 * rank
        else ()
    )
    if not shape or len(data) != 4 + 4 * rank + int(np.prod(shape)):
        raise DataError(
            f"{path} has {len(data):,} bytes, its header promises another number", hint="download it again"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


class IdxItems(ArrayItems):
    """Images of one pair of IDX files."""

    def __init__(self, images: Path, labels: Path) -> None:
        self.files = (images, labels)
        pixels, targets = read_idx(images), read_idx(labels)
        if pixels.ndim not in (3, 4) or targets.ndim != 1 or len(pixels) != len(targets):
            raise DataError(
                f"{images.name} and {labels.name} do not belong together: {pixels.shape} and {targets.shape}",
                hint="use files of one set",
            )
        super().__init__(pixels[..., None] if pixels.ndim == 3 else pixels, targets, prefix=images.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return IdxItems, self.files


def idx_pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """{split: (images file, labels file)} in a folder, by the usual names."""
    pairs: dict[str, tuple[Path, Path]] = {}
    prefixes: dict[str, str] = {}
    for images in sorted(folder.glob("[!.]*-images*idx*-ubyte*")):
        prefix = images.name.split("-images")[0]
        labels = sorted(folder.glob(f"{glob.escape(prefix)}-labels*idx1-ubyte*"))
        split = PREFIXES.get(prefix) or split_in(prefix)
        if split is None or not labels:
            continue
        if prefixes.setdefault(split, prefix) != prefix:
            raise DataError(
                f"{path_text(folder)} holds two sets of IDX files: {prefixes[split]} and {prefix}",
                hint="move the files of one set into a folder of their own",
            )
        pairs.setdefault(split, (images, labels[0]))
    splits = settled({split: split for split in pairs})
    return {splits[split]: files for split, files in pairs.items()}


def find_idx(text: str | Path) -> Source | None:
    """The IDX files of a folder; None for anything else."""
    path = Path(text).expanduser()
    return open_idx(path) if path.is_dir() and idx_pairs(path) else None


def open_idx(folder: Path) -> Source:
    """A source of IDX files under their usual names, such as train-images-idx3-ubyte."""
    splits: dict[str, Items] = {split: IdxItems(*files) for split, files in idx_pairs(folder).items()}
    highest = max((int(items.targets.max()) for items in splits.values() if len(items)), default=-1)
    channels = {items.read(0).shape[2] for items in splits.values() if len(items)}
    labels = tuple(str(number) for number in range(highest + 1))
    return Source(
        name=path_text(folder.resolve().name),
        kind="idx",
        labels=labels,
        splits=splits,
        channels=max(channels, default=1),
    )
