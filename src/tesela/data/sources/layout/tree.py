"""Scan of a folder: its images, its other files, and what was left aside.

Links to folders are followed once, real folders first, and never back to where they came from. Left aside
without a word: what systems leave behind (``__MACOSX``, ``@eaDir``, ``._*``, ``Thumbs.db``, hidden folders).
Left aside by name: what tesela wrote itself. Odd: a link named after a split is followed to a folder that is
also there under its own name, since ``val -> test`` is a usual makeshift.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.sources.layout.split_names import split_word
from tesela.data.sources.layout.written import is_written, written_pictures
from tesela.imaging.suffixes import IMAGE_SUFFIXES

_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "__pycache__")
)
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "icon\r"))
Identity = tuple[int, int]


@dataclass(slots=True)
class Folder:
    """One folder of the scan.

    Attributes:
        path: below the root, with forward slashes; empty for the root.
        images: names of the images in it.
        others: names of its other files.
        folders: the folders in it, by name.
        count: images in it and below.
    """

    path: str
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    count: int = 0

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def filled(self) -> list[Folder]:
        """The folders in it that hold images, at any depth."""
        return [child for child in self.folders if child.count]

    def walk(self) -> Iterator[Folder]:
        """This folder and all below."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += folder.folders

    def image_paths(self) -> list[str]:
        """Paths below the root of all images in it and below, sorted part by part."""
        found = [folder.below(name) for folder in self.walk() for name in folder.images]
        return sorted(found, key=lambda path: path.split("/"))

    def below(self, name: str) -> str:
        """The path of something in it."""
        return f"{self.path}/{name}" if self.path else name


@dataclass(slots=True)
class FolderTree:
    """A scanned folder.

    Attributes:
        root: the folder.
        top: what is in it.
        written: paths of folders that tesela wrote.
        links: paths of links that were not followed.
    """

    root: Path
    top: Folder
    written: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def scan_folder(root: Path) -> FolderTree:
    """Everything below ``root``.

    Raises:
        DataError: a folder cannot be listed.
    """
    tree = FolderTree(root, Folder(""))
    above = {_identity(str(place)) for place in (root.resolve(), *root.resolve().parents)}
    seen: set[Identity] = set(above)
    waiting: list[tuple[Folder, frozenset[Identity]]] = [(tree.top, frozenset(above))]
    links: list[tuple[Folder, str, frozenset[Identity]]] = []
    order = [tree.top]
    while waiting or links:
        if not waiting:
            links.sort(key=lambda link: (link[0].below(link[1]).count("/"), link[0].below(link[1])))
            parent, name, lineage = links.pop(0)
            _follow(tree, parent, name, lineage, seen, waiting, order)
            continue
        folder, lineage = waiting.pop()
        for entry in _list(tree, folder):
            if entry.is_symlink():
                links.append((folder, entry.name, lineage))
                continue
            identity = _identity(entry.path)
            seen.add(identity)
            child = Folder(folder.below(entry.name))
            folder.folders.append(child)
            order.append(child)
            waiting.append((child, lineage | {identity}))
    for folder in reversed(order):
        folder.folders.sort(key=lambda child: child.name)
        folder.count = len(folder.images) + sum(child.count for child in folder.folders)
    tree.written.sort()
    return tree


def _follow(
    tree: FolderTree,
    parent: Folder,
    name: str,
    lineage: frozenset[Identity],
    seen: set[Identity],
    waiting: list[tuple[Folder, frozenset[Identity]]],
    order: list[Folder],
) -> None:
    """Have a link to a folder walked, unless it leads back or to what is there already."""
    child = Folder(parent.below(name))
    identity = _identity(os.path.join(tree.root, child.path))  # noqa: PTH118 - names may be no UTF-8
    if identity in lineage or (identity in seen and split_word(name) is None):
        tree.links.append(child.path)
        return
    seen.add(identity)
    parent.folders.append(child)
    order.append(child)
    waiting.append((child, lineage | {identity}))


def _list(tree: FolderTree, folder: Folder) -> list[os.DirEntry[str]]:
    """Note the files of a folder; the folders in it that are to be walked."""
    place = tree.root / folder.path
    try:
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {path_text(place)} cannot be listed: {error.strerror or error}",
            hint="give yourself permission to read it, or move it out of the data",
        ) from error
    folders = [entry for entry in found if entry.is_dir()]
    files = [entry for entry in found if not entry.is_dir() and not _is_system_file(entry.name)]
    names = {entry.name for entry in files}
    if folder.path and is_written(place, names, {entry.name for entry in folders}):
        tree.written.append(folder.path)
        return []
    pictures = written_pictures(place, names)
    if pictures and len(pictures) == sum(map(_is_image, names)) and folder.path:
        tree.written.append(folder.path)
        return []
    for entry in files:
        if _is_image(entry.name) and entry.name not in pictures and _is_regular(entry):
            folder.images.append(entry.name)
        elif not entry.name.startswith("."):
            folder.others.append(entry.name)
    return [entry for entry in folders if not _is_system_folder(entry.name)]


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - once for each folder
    except OSError:
        return (-1, hash(path))
    return (found.st_dev, found.st_ino)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a name, not a path


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file or a link without a goal, which is listed as unreadable; no pipe, no device."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _is_system_file(name: str) -> bool:
    return name.startswith("._") or name.lower() in _SYSTEM_FILES


def _is_system_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
