"""Contents that were seen before, in a file: the first image of each digest."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Self

from tesela.core.errors import ImageError, StorageError
from tesela.runtime.stored import StoredImage


class Contents:
    """Digests of files with the number of the first that has each.

    A number is kept as it was first written, also by a process that was killed, so that a row that is
    computed again is no duplicate of itself.

    Args:
        file: an SQLite database.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Self:
        with self._failing():
            self._base = sqlite3.connect(self._file)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS contents (digest BLOB PRIMARY KEY, row INTEGER, image TEXT)"
                " WITHOUT ROWID"
            )
        return self

    def __exit__(self, *ended: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._base.commit()
        self._base.close()

    def earlier(self, source: Path | StoredImage, row: int, name: str) -> str | None:
        """The name of an earlier image with the same bytes; None of a new one, or one that cannot be read."""
        try:
            if isinstance(source, StoredImage):
                digest = hashlib.blake2b(source.data()).digest()[:16]
            else:
                with source.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "blake2b").digest()[:16]
        except (OSError, ImageError):
            return None
        with self._failing():
            self._base.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", (digest, row, name))
            first, image = self._base.execute(
                "SELECT row, image FROM contents WHERE digest = ?", (digest,)
            ).fetchone()
        return str(image) if first < row else None

    def keep(self) -> None:
        """Make durable what was seen so far."""
        with self._failing():
            self._base.commit()

    @contextlib.contextmanager
    def _failing(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._file} cannot be used: {error}", hint="free some space") from error
