"""Image files from paths, folders (recursively) and glob patterns.

A file that is named is taken whatever its ending; inside folders the ending decides. Formats that are not
decoded by default are listed too, so that they are reported as unreadable instead of being dropped in
silence.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from tesela.core.errors import DataError, UsageError
from tesela.imaging.suffixes import IMAGE_SUFFIXES


def find_images(words: Iterable[str]) -> list[Path]:
    """The files that ``words`` name, each word's in sorted order, none twice.

    Raises:
        UsageError: no word was given, or a pattern or name matches nothing.
        DataError: a folder holds no image.
    """
    found = dict.fromkeys(path for word in words for path in _expand(word))
    if not found:
        raise UsageError("no image was given", hint="name files, folders or patterns such as 'photos/*.jpg'")
    return list(found)


def _expand(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        images = sorted(_below(path))
        if not images:
            raise DataError(
                f"there is no image in {path}", hint="files need an ending such as .jpg, .png or .webp"
            )
        return images
    if path.exists():
        return [path]
    if glob.has_magic(word):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if matches:
            return [
                image for match in matches for image in (sorted(_below(match)) if match.is_dir() else [match])
            ]
    raise UsageError(
        f"there is no image {word}", hint="check the path; quote patterns such as 'photos/**/*.jpg'"
    )


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path
