"""Folder of results that are pictures: a file for each image, overlays, and a table of all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tesela.core.errors import ImageError
from tesela.core.files import file_stem, unique_names, write_atomic
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits
from tesela.imaging.png import encode_png
from tesela.runtime.stored import StoredImage
from tesela.tasks.result import Result

TABLE = "results.jsonl"
OVERLAYS = "overlays"


class ResultFolder:
    """Writes each result's files, named after its image, as soon as it is there.

    Args:
        path: the folder.
        images: all that will come, in order.
        limits: of decoding, for the overlays.
    """

    def __init__(
        self, path: Path, images: Sequence[Path | StoredImage], *, limits: DecodeLimits = LOCAL_LIMITS
    ) -> None:
        self.path, self._limits = path, limits
        self._names = dict(zip(images, unique_names(map(_stem, images)), strict=True))

    @property
    def table(self) -> Path:
        """The table of all results."""
        return self.path / TABLE

    def write(self, image: Path | StoredImage, result: Result) -> list[str]:
        """Write the files and the overlay of one image; the files' names, none of one that was not read.

        Raises:
            StorageError: the file system refused.
        """
        if result.failure is not None:
            return []
        stem = self._names[image]
        written = []
        for ending, data in result.files().items():
            write_atomic(self.path / f"{stem}{ending}", data)
            written.append(f"{stem}{ending}")
        with contextlib.suppress(ImageError):
            encoded = image.data() if isinstance(image, StoredImage) else image
            drawn = result.drawn(decode(encoded, limits=self._limits))
            if drawn is not None:
                write_atomic(self.path / OVERLAYS / f"{stem}.png", encode_png(drawn, level=3))
        return written


def _stem(image: Path | StoredImage) -> str:
    """Of a stored image that of its shard, with its number."""
    if isinstance(image, Path):
        return file_stem(image)
    shard, _, number = image.name.rpartition("#")
    return f"{file_stem(Path(shard))}-{number}"
