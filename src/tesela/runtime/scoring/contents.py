"""Contents that were seen before, in a file: the first image of each digest."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Self

from tesela.core.errors import StorageError


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

    def earlier(self, path: Path, row: int, name: str) -> str | None:
        """The name of an earlier image with the same bytes; None of a new one, or one that cannot be read."""
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").digest()[:16]
        except OSError:
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
