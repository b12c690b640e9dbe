"""Score: a row for each of very many images, in parts that are whole or not there.

The folder reads as one table: pyarrow, pandas and DuckDB leave out names that begin with ``_``. Listing,
decoding, computing and writing go on beside one another. A part gets its name when all of its rows are there,
and then stands in the journal; a process that takes over leaves out what the journal has and computes the
rest, so that every image has exactly one row whenever the process was killed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.errors import UsageError
from tesela.core.files import write_atomic
from tesela.core.progress import Bar
from tesela.runtime.predictor import Predictor
from tesela.runtime.scoring.journal import Journal, PartDone
from tesela.runtime.scoring.listing import Listing
from tesela.runtime.stored import StoredImage, source_name
from tesela.runtime.table import PredictionTable
from tesela.tasks.result import Result

if TYPE_CHECKING:
    from tesela.runtime.scoring.contents import Contents

LIST, CONTENTS, DUPLICATES = "_images.list", "_contents.sqlite", "_duplicates"
PART_ENDINGS = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A finished scoring.

    Attributes:
        images: listed.
        rows: written, by all processes.
        unreadable: rows with an error.
        duplicates: images without a row, listed with the earlier image of the same bytes.
        parts: files.
        seconds: of this process.
        computed: rows that this process wrote.
    """

    images: int
    rows: int
    unreadable: int
    duplicates: int
    parts: int
    seconds: float
    computed: int


def check_parts(out: Path | None, size: int) -> None:
    """Refuse a name that does not say the format of its parts, and parts without rows.

    Raises:
        UsageError: it says what would do.
    """
    if out is None:
        raise UsageError("parts need a folder", hint="name it with --out scores.parquet")
    if out.suffix.lower() not in PART_ENDINGS:
        raise UsageError(
            f"cannot tell the format of the parts of {out.name}",
            hint="end the folder's name in .jsonl, .csv or .parquet, such as --out scores.parquet",
        )
    if size < 1:
        raise UsageError(
            f"a part has at least one row, not {size}", hint="tesela predict RUN IMAGES --parts 2000"
        )


class Scoring:
    """Rows of images, part by part.

    Args:
        folder: where parts, list and journal lie; locked.
        images: goes through the images.
        journal: what is done.
        size: rows of a part.
        dedupe: whether images with the bytes of an earlier one are left out.
    """

    def __init__(
        self,
        folder: Path,
        images: Callable[[], Iterator[Path | StoredImage]],
        journal: Journal,
        *,
        size: int,
        dedupe: bool,
    ) -> None:
        self.folder, self._journal, self.size, self._dedupe = folder, journal, size, dedupe
        self._listing = Listing(folder / LIST, images)
        for leftover in folder.glob(".*.part"):  # of a process that was killed; the folder is locked
            leftover.unlink(missing_ok=True)
        self._rows: deque[tuple[int, str, str | None]] = deque()
        self._computed = self._passed = 0

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06d}{self.folder.suffix.lower()}"

    def run(
        self,
        predictor: Predictor,
        *,
        batch: int,
        bar: Bar,
        unreadable: Callable[[Result], None],
        stream: Callable[..., Iterator[Result]] | None = None,
        **options: Any,
    ) -> Scored:
        """Compute what is missing.

        Args:
            predictor: the model.
            batch: images computed at once.
            bar: shows progress.
            unreadable: is told each result of an image that could not be read.
            stream: computes in the predictor's place, with its signature; see ``cluster``.
            **options: of the task's results.

        Raises:
            DataError: the images have changed, or there is none.
            StorageError: the file system refused; the parts that are there stay.
        """
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            seen: Contents | None = None
            if self._dedupe:
                from tesela.runtime.scoring.contents import Contents  # SQLite, which few predictions need

                seen = stack.enter_context(Contents(self.folder / CONTENTS))
            results = (stream or predictor.stream)(self._wanted(seen, bar), batch=batch, **options)
            blank = predictor.blank(features=bool(options.get("features")))
            writer = _PartWriter(self, blank.schema, seen)
            stack.push(writer.abandon)
            for result in results:
                self._copies(writer)
                number, _, _ = self._rows.popleft()
                writer.append(number, result)
                self._computed += 1
                if result.failure is not None:
                    unreadable(result.bare())
                self._advance(bar, begin)
            self._copies(writer)
            writer.close()
        total, journal = self._listing.known, self._journal
        return Scored(
            images=total,
            rows=journal.total("rows"),
            unreadable=journal.total("unreadable"),
            duplicates=journal.total("duplicates"),
            parts=len(journal.parts),
            seconds=time.monotonic() - begin,
            computed=self._computed,
        )

    def _wanted(self, seen: Contents | None, bar: Bar) -> Iterator[Path | StoredImage]:
        """The images that need a row; those that need none are noted in between."""
        done = self._journal.parts
        total = 0
        for number, source in enumerate(self._listing):
            if self._listing.known != total:
                total = self._listing.known
                bar.resize(total)
            part, self._passed = number // self.size, number + 1
            if part in done and self.part(part).exists():
                bar.advance()
                continue
            name = source_name(source, number)
            earlier = seen.earlier(source, number, name) if seen is not None else None
            self._rows.append((number, name, earlier))
            if earlier is None:
                yield source

    def _copies(self, writer: _PartWriter) -> None:
        """Write down the images of known content that come next."""
        while self._rows and self._rows[0][2] is not None:
            number, name, earlier = self._rows.popleft()
            writer.leave_out(number, name, str(earlier))

    def _advance(self, bar: Bar, begin: float) -> None:
        speed = self._computed / max(time.monotonic() - begin, 1e-9)
        left = (self._listing.known - self._passed) / speed if self._listing.complete else 0.0
        bar.advance(1, images_per_second=speed, **({"seconds_left": left} if left else {}))

    def finish(self, done: PartDone) -> None:
        """Note a part that is there."""
        self._journal.add(done)


class _PartWriter:
    """Writes rows to the part that they belong to, one part at a time."""

    def __init__(self, scoring: Scoring, schema: dict[str, Any], seen: Contents | None) -> None:
        self._scoring, self._schema, self._seen = scoring, schema, seen
        self._open: tuple[PartDone, contextlib.ExitStack, PredictionTable] | None = None
        self._duplicates: list[dict[str, str]] = []

    def append(self, number: int, result: Result) -> None:
        done, table = self._part(number)
        table.append(result)
        self._count(replace(done, rows=done.rows + 1, unreadable=done.unreadable + bool(result.failure)))

    def leave_out(self, number: int, name: str, earlier: str) -> None:
        done, _ = self._part(number)
        self._duplicates.append({"image": name, "same_as": earlier})
        self._count(replace(done, duplicates=done.duplicates + 1))

    def close(self) -> None:
        """Put the open part under its name, then into the journal."""
        if self._open is None:
            return
        done, stack, _ = self._open
        if self._duplicates:
            lines = "".join(json.dumps(row) + "\n" for row in self._duplicates)
            write_atomic(self._scoring.folder / DUPLICATES / f"part-{done.part:06d}.jsonl", lines.encode())
        if self._seen is not None:
            self._seen.keep()
        stack.close()
        self._scoring.finish(done)
        self._open, self._duplicates = None, []

    def abandon(self, *error: Any) -> None:
        """Remove the part that is not finished, where an error ended the scoring."""
        if self._open is not None:
            self._open[1].__exit__(*error)
            self._open = None

    def _part(self, number: int) -> tuple[PartDone, PredictionTable]:
        part = number // self._scoring.size
        if self._open is not None and self._open[0].part != part:
            self.close()
        if self._open is None:
            stack = contextlib.ExitStack()
            table = stack.enter_context(PredictionTable(self._scoring.part(part), schema=self._schema))
            self._open = PartDone(part=part, rows=0, unreadable=0, duplicates=0), stack, table
        return self._open[0], self._open[2]

    def _count(self, done: PartDone) -> None:
        assert self._open is not None
        self._open = (done, *self._open[1:])
