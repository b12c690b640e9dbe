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


def _expand(word: str | Path, root: Path | None) -> list[Path]:
    if word == "":  # a shell's unset variable would mean the whole working folder
        raise UsageError("the name of an image is empty", hint="name a file, or . for this folder")
    path = Path(word).expanduser()
    if not _exists(path):
        path = text_path(str(path))
    if not _exists(path) and root is not None and ".." not in path.parts and _exists(root / path):
        path = root / path
    if _exists(path):
        if not path.is_dir():
            return [path]
        images = sorted(_below(path))
        if not images:
            raise DataError(
                f"there is no image in {path}", hint="files need an ending such as .jpg, .png or .webp"
            )
        return images
    if isinstance(word, str) and glob.has_magic(word):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if matches:
            return [
                image for match in matches for image in (sorted(_below(match)) if match.is_dir() else [match])
            ]
    raise UsageError(
        f"there is no image {word}", hint="check the path; quote patterns such as 'photos/**/*.jpg'"
    )


def _exists(path: Path) -> bool:
    """Whether a file, a folder or a link has that name."""
    return os.path.lexists(path)


def _below(folder: Path) -> Iterator[Path]:
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - one call per folder
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(place, name)
            if name.startswith("._") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path
