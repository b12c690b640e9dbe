"""Listing of the images to score, written to a file while it is read.

The first process writes down the names in its order, folder by folder, and a last line with their number.
Rows are counted by these lines ever after, so that a process that takes over continues with the same ones.
One that finds an unfinished list goes through the folders again and refuses to go on where they have changed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tesela.core.errors import DataError
from tesela.core.files import io_call, storage_errors
from tesela.runtime.stored import StoredImage, read_source, source_name, written_source

#: Seconds between two looks at a list that is still written.
PAUSE = 0.02
#: Lines that are written at once.
LINES = 256


class Listing:
    """The images' names, in a file.

    Args:
        file: the list.
        images: goes through the folders; called where the list is not finished.

    Attributes:
        known: names that are listed so far.
        complete: whether these are all.
    """

    def __init__(self, file: Path, images: Callable[[], Iterator[Path | StoredImage]]) -> None:
        self._file, self._images = file, images
        self.known, self.complete = 0, False
        self._error: BaseException | None = None
        self._left = threading.Event()

    def __iter__(self) -> Iterator[Path | StoredImage]:
        """All images in order, as they become known.

        Raises:
            DataError: there is none, or the folders have changed since the list was begun.
            StorageError: the list could not be written.
        """
        total = listed_total(self._file)
        if total is None:
            self._left.clear()
            writer = threading.Thread(target=self._list, name="tesela-list", daemon=True)
            writer.start()
        else:
            self.known, self.complete = total, True
        try:
            yield from self._read()
        finally:
            self._left.set()
            if total is None:
                writer.join()

    def _read(self) -> Iterator[Path | StoredImage]:
        given, stream = 0, None
        try:
            while True:
                ended = self.complete or self._error is not None
                if given < self.known:
                    with storage_errors(self._file):
                        stream = stream or self._file.open("rb")
                        lines = [stream.readline() for _ in range(min(LINES, self.known - given))]
                    for line in lines:
                        yield read_source(json.loads(line))
                    given += len(lines)
                elif ended:
                    break
                else:
                    self._left.wait(PAUSE)
        finally:
            if stream is not None:
                stream.close()
        if self._error is not None:
            raise self._error

    def _list(self) -> None:
        """Write the list, in a thread."""
        try:
            with storage_errors(self._file):
                io_call("open", lambda: self._file.touch())
                whole = _whole_lines(self._file)
                with self._file.open("r+b") as stream:
                    count = self._append(stream, whole)
                    if not self._left.is_set():
                        stream.write((json.dumps({"images": count}) + "\n").encode())
            self.complete = not self._left.is_set()
        except BaseException as error:
            self._error = error

    def _append(self, stream, whole: int) -> int:  # type: ignore[no-untyped-def]
        """Compare what is listed already, ``whole`` lines, and write the rest; the number of images."""
        count, waiting = 0, []
        for source in self._images():
            line = (json.dumps(written_source(source)) + "\n").encode()
            if count < whole:
                if stream.readline() != line:
                    raise DataError(
                        "the images have changed since they were listed: "
                        f"{source_name(source, count)} is new, or others are gone",
                        hint="put them back, or score them into another folder with --out",
                    )
            else:
                if count == whole:
                    stream.truncate()
                waiting.append(line)
            count += 1
            if len(waiting) >= LINES or count <= whole:
                self._flush(stream, waiting, count)
            if self._left.is_set():
                break
        if count < whole and not self._left.is_set():
            raise DataError(
                f"the images have changed since they were listed: {whole} were there, {count} are left",
                hint="put them back, or score them into another folder with --out",
            )
        if count == whole:
            stream.truncate()
        self._flush(stream, waiting, count)
        return count

    def _flush(self, stream, waiting: list[bytes], count: int) -> None:  # type: ignore[no-untyped-def]
        if waiting:
            data = b"".join(waiting)
            io_call("write", lambda: stream.write(data))
            stream.flush()
            waiting.clear()
        self.known = count


def listed_total(file: Path) -> int | None:
    """Number of images of a list that is complete; None of one that is not, or not there."""
    if not file.exists():
        return None
    with storage_errors(file), file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 64))
        last = stream.read().splitlines(keepends=True)[-1:]
    if not last or not last[0].startswith(b'{"images"') or not last[0].endswith(b"\n"):
        return None
    return int(json.loads(last[0])["images"])


def _whole_lines(file: Path) -> int:
    """Lines that are not cut off."""
    count = 0
    with file.open("rb") as stream:
        for line in stream:
            count += line.endswith(b"\n")
    return count
