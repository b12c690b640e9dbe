"""A folder of class folders, alone or below train/, val/ (valid, validation) and test/.

Class folders may have folders inside. Files are found by suffix; images of formats that tesela does not open
are found too, so that they are listed as unreadable instead of vanishing. Everything is sorted by name. Odd:
a folder counts as split only if it has ``train`` and nothing but split names beside it, so a class called
"test" is possible.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import DataError
from tesela.data.source import Columns, Source
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.suffixes import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class FileItems:
    """Image files below one folder.

    Args:
        root: the folder.
        paths: relative to it, with forward slashes.
        targets: class index of each.
        channels: what ``read`` gives when nobody asks for more.
        columns: further values of each image, by name.
    """

    limits = LOCAL_LIMITS

    def __init__(
        self,
        root: Path,
        paths: Iterable[str],
        targets: Iterable[int],
        *,
        channels: int = 3,
        columns: Columns | None = None,
    ) -> None:
        self.root = root
        self.paths = tuple(paths)
        self.targets = np.array(list(targets), np.int64)
        self.channels = channels
        self.columns: Columns = columns or {}

    def __len__(self) -> int:
        return len(self.paths)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """As Items.read."""
        return decode(
            self.root / self.paths[index],
            channels=channels or self.channels,
            limits=self.limits,
            size_hint=size_hint,
        )

    def name(self, index: int) -> str:
        """The path below the root."""
        return self.paths[index]

    def raw(self, index: int) -> bytes | None:
        """The file's bytes; None where the file system does not give them."""
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError:
            return None


def find_folder(text: str | Path) -> Source | None:
    """The class folders of a folder; None for a file."""
    path = Path(text).expanduser()
    return open_folder(path) if path.is_dir() else None


def open_folder(root: Path) -> Source:
    """A source of class folders.

    Raises:
        DataError: it has no class folders, or images beside them.
    """
    folders = split_folders(root) or {"train": ""}
    found = {split: list(_images_by_class(root, below)) for split, below in folders.items()}
    labels = tuple(sorted({label for images in found.values() for label, _ in images}))
    if not labels:
        raise _no_images(root)
    number = {label: index for index, label in enumerate(labels)}
    splits = {
        split: FileItems(root, (path for _, path in images), (number[label] for label, _ in images))
        for split, images in found.items()
    }
    return Source(
        name=root.resolve().name, kind="folder", labels=labels, splits=splits, ignored=tuple(_ignored(root))
    )


def split_folders(root: Path) -> dict[str, str]:
    """{split: folder name} if the folder is divided into splits, else nothing.

    Raises:
        DataError: two folders name the same split.
    """
    names = [child.name for child in _folders(root)]
    splits = [SPLIT_NAMES.get(name.lower()) for name in names]
    if "train" not in splits or None in splits:
        return {}
    if len(set(splits)) < len(splits):
        raise DataError(
            f"{root} has two folders for one split: {', '.join(names)}",
            hint="keep one of train, val and test each",
        )
    return {split: name for split, name in zip(splits, names, strict=True) if split}


def _images_by_class(root: Path, below: str) -> Iterable[tuple[str, str]]:
    """(label, path below the root) of every image, sorted."""
    for folder in _folders(root / below):
        _refuse_masks(folder)
        for path in sorted(_files(folder)):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield folder.name, path.relative_to(root).as_posix()


def _refuse_masks(folder: Path) -> None:
    if folder.name == "masks" and (folder.parent / "images").is_dir():
        raise DataError(
            f"{folder.parent} holds images and masks, which is for segmentation",
            hint="classification needs a folder of class folders",
        )


def _folders(root: Path) -> list[Path]:
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def _files(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name)


def _ignored(root: Path) -> list[str]:
    """Files that are no images, or images outside any class folder."""
    classes = {
        place for below in (split_folders(root) or {"": ""}).values() for place in _folders(root / below)
    }
    return sorted(
        path.relative_to(root).as_posix()
        for path in _files(root)
        if path.suffix.lower() not in IMAGE_SUFFIXES or not classes.intersection(path.parents)
    )


def _no_images(root: Path) -> DataError:
    loose = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in _files(root))
    if loose:
        return DataError(
            f"{root} holds {loose} images but no class folders",
            hint="put the images of each class into a folder named after it",
        )
    return DataError(
        f"{root} holds no images", hint="a folder with one folder of images per class is expected"
    )
