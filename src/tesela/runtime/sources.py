"""Image files from paths, folders (recursively) and glob patterns.

A file that is named is taken whatever its ending; inside folders the ending decides. Formats that are not
decoded by default, and links to nothing, are listed too, so that they are reported as unreadable instead of
being dropped in silence; so are hidden files, but for the ``._*`` of other systems. Links to folders are
followed, each folder once. A name may also be written as ``tesela.core.pathnames`` writes it, and of a run's
own images as its report and its table of mistakes name them: below the folder of its data.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tesela.core.errors import DataError, UsageError
from tesela.core.pathnames import text_path
from tesela.imaging.suffixes import IMAGE_SUFFIXES


def find_images(words: Iterable[str | Path], *, root: Path | None = None) -> list[Path]:
    """The files that ``words`` name, each word's in sorted order, none twice.

    Args:
        words: names of files and folders, and patterns.
        root: a folder below which a name is looked for that is not there otherwise.

    Raises:
        UsageError: no word was given, or a pattern or name matches nothing.
        DataError: a folder holds no image.
    """
    found = dict.fromkeys(path for word in words for path in _expand(word, root))
    if not found:
        raise UsageError("no image was given", hint="name files, folders or patterns such as 'photos/*.jpg'")
    return list(found)


def stream_images(words: Iterable[str | Path], *, root: Path | None = None) -> Iterator[Path]:
    """The same files as they are found, folder by folder; no list of them is kept.

    Args:
        words: as of ``find_images``.
        root: as of ``find_images``.

    Raises:
        UsageError: no word was given, or a pattern or name matches nothing.
        DataError: a folder holds no image.
    """
    seen: set[tuple[int, int]] = set()
    named: set[Path] = set()
    places = [place for word in words for place in _places(word, root)]
    if not places:
        raise UsageError("no image was given", hint="name files, folders or patterns such as 'photos/*.jpg'")
    for path in places:
        if not path.is_dir():
            listed = _is_image_name(path) and _identity(path.parent) in seen
            if path not in named and not listed:
                named.add(path)
                yield path
            continue
        again, found = _identity(path) in seen, False
        for image in _below(path, seen):
            found = True
            if image not in named:
                yield image
        if not found and not again:
            raise _empty(path)


def has_image(folder: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return next(_below(folder), None) is not None


def _is_image_name(path: Path) -> bool:
    return not path.name.startswith("._") and path.suffix.lower() in IMAGE_SUFFIXES


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _empty(folder: Path) -> DataError:
    return DataError(
        f"there is no image in {folder}", hint="files need an ending such as .jpg, .png or .webp"
    )


def _expand(word: str | Path, root: Path | None) -> list[Path]:
    """The images that a word names, sorted."""
    places = _places(word, root)
    if len(places) == 1 and places[0].is_dir():
        images = sorted(_below(places[0]))
        if not images and (not glob.has_magic(str(word)) or _exists(Path(word).expanduser())):
            raise _empty(places[0])
        return images
    return [image for place in places for image in (sorted(_below(place)) if place.is_dir() else [place])]


def _places(word: str | Path, root: Path | None) -> list[Path]:
    """The files and folders that a word names.

    Raises:
        UsageError: there is none.
    """
    if word == "":  # a shell's unset variable would mean the whole working folder
        raise UsageError("the name of an image is empty", hint="name a file, or . for this folder")
    path = Path(word).expanduser()
    if not _exists(path):
        path = text_path(str(path))
    if not _exists(path) and root is not None and ".." not in path.parts and _exists(root / path):
        path = root / path
    if _exists(path):
        return [path]
    if isinstance(word, str) and glob.has_magic(word):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if matches:
            return matches
    raise UsageError(
        f"there is no image {word}", hint="check the path; quote patterns such as 'photos/**/*.jpg'"
    )


def _exists(path: Path) -> bool:
    """Whether a file, a folder or a link has that name."""
    return os.path.lexists(path)


def _below(folder: Path, seen: set[tuple[int, int]] | None = None) -> Iterator[Path]:
    """Images in a folder and all below it that are not in ``seen``, which gets them."""
    seen = set() if seen is None else seen
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - one call per folder
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not _is_image_name(path):
                continue
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path
