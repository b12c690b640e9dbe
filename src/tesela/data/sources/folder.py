"""A folder of class folders, alone or below train, val and test.

Class folders may have folders inside. Files are found by suffix; images of formats that tesela does not open
are found too, so that they are listed as unreadable instead of vanishing. Everything is sorted by name. What
the folders stand for is read in layout.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.source import Columns, Source
from tesela.data.sources.layout.layout import FolderLayout, read_layout, without_classes_hint
from tesela.data.sources.layout.tree import Folder, FolderTree, scan_folder
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        """The path below the root, as text."""
        return path_text(self.paths[index])

    def raw(self, index: int) -> bytes | None:
        """The file's bytes; None where the file system does not give them."""
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError:
            return None

    def byte_sizes(self) -> NDArray[np.int64]:
        """(N,) bytes of each file; -1 where there is none."""
        root = os.fspath(self.root)
        return np.array([_byte_size(os.path.join(root, path)) for path in self.paths], np.int64)  # noqa: PTH118

    def tail(self, index: int, count: int) -> bytes | None:
        """The last ``count`` bytes of a file; None where it cannot be read."""
        try:
            with (self.root / self.paths[index]).open("rb", buffering=0) as stream:
                stream.seek(-min(count, stream.seek(0, 2)), 2)
                return stream.read(count)
        except OSError:
            return None


def _byte_size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path for each of a million files takes longer
    except OSError:
        return -1


def find_folder(text: str | Path) -> Source | None:
    """The class folders of a folder; None for a file."""
    path = Path(text).expanduser()
    return open_folder(path) if path.is_dir() else None


def open_folder(root: Path) -> Source:
    """A source of class folders.

    Raises:
        DataError: it has no class folders, or folders that contradict one another.
    """
    tree = scan_folder(root)
    layout = read_layout(tree)
    labels = tuple(sorted({label for images in layout.images.values() for label, _ in images}))
    if not labels:
        raise _no_images(root, tree.top)
    number = {label: index for index, label in enumerate(labels)}
    hidden = [path for images in layout.images.values() for _, path in images if "/." in f"/{path}"]
    notes = layout.notes
    if hidden:
        notes = (
            *notes,
            f"images with hidden names are used too ({len(hidden)}), such as {path_text(hidden[0])}",
        )
    splits = {
        split: FileItems(root, (path for _, path in images), (number[label] for label, _ in images))
        for split, images in layout.images.items()
    }
    return Source(
        name=path_text(root.resolve().name),
        kind="folder",
        labels=labels,
        splits=splits,
        ignored=tuple(_ignored(tree, layout)),
        notes=notes,
    )


def _ignored(tree: FolderTree, layout: FolderLayout) -> list[str]:
    """Files that are no images, or images outside any class folder; not those left aside with a note."""
    used = {path for images in layout.images.values() for _, path in images}
    aside = {id(folder) for one in layout.aside for folder in one.walk()}
    return sorted(
        path_text(path)
        for folder in tree.top.walk()
        if id(folder) not in aside
        for path in map(folder.below, (*folder.images, *folder.others))
        if path not in used
    )


def _no_images(root: Path, top: Folder) -> DataError:
    if top.count:
        return DataError(
            f"{path_text(root)} holds {top.count} images but no class folders", hint=without_classes_hint(top)
        )
    return DataError(
        f"{path_text(root)} holds no images", hint="a folder with one folder of images per class is expected"
    )
