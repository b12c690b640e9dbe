"""History of a run: reproducible rows, timings, TensorBoard events.

``metrics.jsonl`` holds only values that are functions of the configuration, so that an interrupted run ends
with the same bytes; a checkpoint remembers how long the file was, and resuming cuts it there. Seconds go to
``timing.jsonl``. Odd: TensorBoard is optional and its files are not exact; after a resume it hides what is
later than the step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from tesela.core.files import io_call, storage_errors, write_atomic
from tesela.core.packages import installed
from tesela.runs.folder import Run


class Events:
    """The open logs of one run.

    Args:
        run: the run folder.
        tensorboard: whether to write TensorBoard's files too, where it is installed.
    """

    def __init__(self, run: Run, *, tensorboard: bool) -> None:
        self._run = run
        self._writer: Any = None
        self._want_tensorboard = tensorboard and installed("tensorboard")
        self._digest = hashlib.sha256()
        self._size = 0
        self._metrics: BinaryIO | None = None
        self._timing: BinaryIO | None = None

    def open(self, position: dict[str, Any] | None, *, step: int) -> bool:
        """Continue at a checkpoint's ``position`` or begin again.

        Whether the rows before it are as they were.
        """
        size = position["bytes"] if position else 0
        with storage_errors(self._run.metrics):
            io_call("open", lambda: self._run.metrics.touch())
            before = self._run.metrics.read_bytes()[:size]
            io_call("truncate", lambda: os.truncate(self._run.metrics, len(before)))
            self._metrics = self._run.metrics.open("ab")
            self._timing = self._run.timing.open("ab")
        self._digest, self._size = hashlib.sha256(before), len(before)
        if self._want_tensorboard:
            self._writer = _writer(self._run.tensorboard, step)
        return position is None or (len(before) == size and self._digest.hexdigest() == position["sha256"])

    def row(self, kind: str, values: dict[str, Any]) -> None:
        """Append one reproducible row, and show it to TensorBoard."""
        line = (json.dumps({"kind": kind, **values}) + "\n").encode()
        self._append(self._metrics, self._run.metrics, line)
        self._digest.update(line)
        self._size += len(line)
        self._scalars(kind, values)

    def timing(self, values: dict[str, Any]) -> None:
        """Append one row of seconds and speeds."""
        self._append(self._timing, self._run.timing, (json.dumps(values) + "\n").encode())
        self._scalars("timing", values)

    def picture(self, epoch: int, png: bytes) -> None:
        """Keep the picture of an epoch's validation; one of an earlier attempt is replaced."""
        write_atomic(self._run.frames / f"{epoch:06d}.png", png)

    def position(self) -> dict[str, Any]:
        """How far the reproducible rows go, made durable: what a checkpoint remembers."""
        if self._metrics is not None:
            stream = self._metrics
            with storage_errors(self._run.metrics):
                io_call("fsync", lambda: os.fsync(stream.fileno()))
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close all files."""
        for stream in (self._metrics, self._timing):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self._writer is not None:
            self._writer.close()
        self._metrics = self._timing = self._writer = None

    def _append(self, stream: BinaryIO | None, path: Path, line: bytes) -> None:
        if stream is not None:
            with storage_errors(path, needed=len(line)):
                io_call("write", lambda: stream.write(line))
                stream.flush()

    def _scalars(self, kind: str, values: dict[str, Any]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                if name not in ("step", "epoch") and isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{kind}/{name}", value, values["step"])


def elapsed_seconds(run: Run) -> float:
    """Seconds that earlier sittings of this run have spent, by its last timing row that can be read."""
    if not run.timing.exists():
        return 0.0
    for line in reversed(run.timing.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return float(json.loads(line)["elapsed"])
    return 0.0


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
