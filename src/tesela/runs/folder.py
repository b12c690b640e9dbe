"""Run folder: paths of its files, and the lock against a second training.

    config.yaml        the whole configuration, replayable
    choices.json       what was measured and chosen on this machine
    checkpoints/       what --resume reads
    metrics.jsonl      reproducible rows of every step and epoch
    timing.jsonl       seconds and images/s, never compared
    bundle/            the finished model
    evaluation.json    scores; predictions.npz, report.html and tensorboard/ lie beside it
    epochs.gif         what the task drew of the validation after each epoch
    few_shot.json      few-shot accuracies, where they were asked for
    result.json        written last: the run is complete

Odd: the lock is POSIX's ``lockf``, not ``flock``, because loader workers would inherit the latter and keep it
after a SIGKILL of their parent.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tesela.core.address import refuse_address
from tesela.core.config import read_yaml
from tesela.core.errors import FolderInUseError, TeselaError
from tesela.core.files import io_call, storage_errors

_held: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and the names in it."""

    path: Path

    def __init__(self, path: Path | str) -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def config(self) -> Path:
        """The whole configuration as YAML."""
        return self.path / "config.yaml"

    @property
    def data_root(self) -> Path | None:
        """The folder that the names of the run's images are below; None where there is none.

        Reports and tables of mistakes name an image so.
        """
        try:
            source = (read_yaml(self.config).get("data") or {}).get("source")
        except (TeselaError, OSError, AttributeError):
            return None
        place = Path(source).expanduser() if isinstance(source, str) else None
        if place is None or not place.exists():
            return None
        return place if place.is_dir() else place.parent

    @property
    def choices(self) -> Path:
        """What was measured and chosen when the run began."""
        return self.path / "choices.json"

    @property
    def bundle(self) -> Path:
        """The finished model."""
        return self.path / "bundle"

    @property
    def adapter(self) -> Path:
        """Adapters and head of a finished run that trained these; the bundle has them merged."""
        return self.path / "adapter"

    @property
    def features(self) -> Path:
        """What the frozen body made of the images; only there while a run that keeps it on disk goes on."""
        return self.path / "features"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Rows of steps and epochs; equal bit for bit however often the run was interrupted."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """Rows with seconds and images per second."""
        return self.path / "timing.jsonl"

    @property
    def unreadable(self) -> Path:
        """Images that were left out because they cannot be read; only there where some were."""
        return self.path / "unreadable.json"

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Scores on the test split."""
        return self.path / "evaluation.json"

    @property
    def few_shot(self) -> Path:
        """Few-shot accuracies of the frozen model."""
        return self.path / "few_shot.json"

    @property
    def predictions(self) -> Path:
        """Probabilities, targets and thumbnails behind the report."""
        return self.path / "predictions.npz"

    @property
    def frames(self) -> Path:
        """A picture of the validation for each epoch, of tasks that draw one; there until the run is done."""
        return self.path / "frames"

    @property
    def animation(self) -> Path:
        """These pictures, one after the other."""
        return self.path / "epochs.gif"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def result(self) -> Path:
        """The result, written last."""
        return self.path / "result.json"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config.is_file()

    def is_free(self) -> bool:
        """Whether nothing but leftovers of a start that got nowhere lies here."""
        return not self.path.exists() or (
            self.path.is_dir() and all(child.name.startswith(".") for child in self.path.iterdir())
        )

    @contextlib.contextmanager
    def locked(self, who: str = "training") -> Iterator[None]:
        """Keep every other process out of the folder until the block ends or this one dies.

        Args:
            who: writes to it, for the message.

        Raises:
            FolderInUseError: another one holds it.
        """
        refuse_address(self.path)
        key = self.path.resolve()
        with storage_errors(self.path):
            io_call("mkdir", lambda: self.path.mkdir(parents=True, exist_ok=True))
            descriptor = io_call("open", lambda: os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644))
        try:
            if key in _held or not _lock(descriptor):
                raise FolderInUseError(
                    f"another {who} is writing to {self.path}",
                    hint="wait for it to end, or choose another folder with --out",
                )
            _held.add(key)
            try:
                yield
            finally:
                _held.discard(key)
        finally:
            os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
