"""Journal of a scoring: its settings, and a line for each part whose rows are all there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tesela.core.begun import refuse_other_settings
from tesela.core.errors import UsageError
from tesela.core.files import io_call, read_json, storage_errors, write_json

SETTINGS, DONE = "_settings.json", "_journal.list"
SCORING_FORMAT = "tesela-scoring/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDone:
    """One part.

    Attributes:
        part: its number, from 0.
        rows: images that have a row.
        unreadable: those of them that could not be read.
        duplicates: images left out because an earlier one has the same bytes.
    """

    part: int
    rows: int
    unreadable: int
    duplicates: int


class Journal:
    """What is done of a scoring, in its folder.

    Args:
        folder: of the scoring, locked.
        settings: by name; values of JSON.

    Raises:
        ConfigError: the folder holds a scoring with other settings.
        UsageError: it holds something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._file = folder / DONE
        begun = begun_settings(folder)
        wanted = {"format": SCORING_FORMAT, **settings}
        if begun is None:
            write_json(folder / SETTINGS, wanted)
        else:
            refuse_other_settings(folder, begun, wanted)
        self.parts = self._read()

    def _read(self) -> dict[int, PartDone]:
        found: dict[int, PartDone] = {}
        if not self._file.exists():
            return found
        whole = 0
        with storage_errors(self._file):
            with self._file.open("rb") as stream:
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    done = PartDone(**json.loads(line))
                    found[done.part] = done
                    whole += len(line)
            io_call("truncate", lambda: os.truncate(self._file, whole))  # a line that was cut off
        return found

    def add(self, done: PartDone) -> None:
        """Write down that a part is there, durably."""
        line = (json.dumps(asdict(done)) + "\n").encode()
        with storage_errors(self._file, needed=len(line)), self._file.open("ab") as stream:
            io_call("write", lambda: stream.write(line))
            stream.flush()
            io_call("fsync", lambda: os.fsync(stream.fileno()))
        self.parts[done.part] = done

    def total(self, name: str) -> int:
        """Sum of a field over the parts."""
        return sum(getattr(done, name) for done in self.parts.values())


def begun_settings(folder: Path) -> dict[str, Any] | None:
    """Settings of the scoring in a folder; None where none was begun.

    Raises:
        UsageError: something else is there.
    """
    if not folder.exists():
        return None
    file = folder / SETTINGS
    if folder.is_dir() and file.exists():
        return dict(read_json(file))
    if not folder.is_dir() or any(not child.name.startswith(".") for child in folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and no parts were written there", hint="choose another --out"
        )
    return None
