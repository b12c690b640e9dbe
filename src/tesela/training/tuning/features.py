"""Cached features of a frozen backbone for every view of an image.

An image that is at most flipped has one, two or four views, so its features can be kept instead of its
pixels. Which view an epoch takes is the same function of (seed, epoch, index) as without the cache, and so
are order and batches: training on kept features is training on the images, as long as nothing else is random.

They lie in memory, or in a file of the run folder that is read as needed. That file is written batch by batch
with a note of how far it came, so an interrupted run goes on where it was; features in memory are computed
again, to the same bits. Odd: the space is reserved before anything is written, because a full disk under a
mapped file kills the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.core.failpoint import failpoint
from tesela.core.files import io_call, read_json, sha256_file, storage_errors, write_json
from tesela.core.progress import Bar
from tesela.data.augment.flips import seen, views
from tesela.data.batch import Batch
from tesela.data.config import AugmentConfig
from tesela.data.loader import Loader
from tesela.data.random import permutation, uniforms
from tesela.models.model import Model

#: Kept in memory up to so many bytes, on disk above.
FEATURE_BYTES = 2 << 30
NOTE_SECONDS = 20.0


class HeadModel(nn.Module):
    """The head alone, from features (B, D) to logits (B, K).

    Its parameters have the names that they have in the whole model.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def head_names(self) -> set[str]:
        """All names."""
        return {name for name, _ in self.named_parameters()}

    def forward(self, features: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.head(features)
        return logits


def head_input(model: Model, images: Tensor) -> Tensor:
    """What the head of ``model`` reads of images (B, C, H, W): (B, D), float32."""
    found: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return found[0].float()


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Settings of a computation of features.

    Attributes:
        model: in evaluation mode but for its head.
        device: where it is.
        autocast: makes the context in which it computes.
        key: a text that differs wherever features may differ.
    """

    model: Model
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    key: str


class FeatureLoader:
    """Batches of features, in the place of the batches of images that ``images`` would give.

    Args:
        images: the loader whose images they are of.
        body: makes them.
        width: D.
        augment: flips, or None.
        shuffle: a new order each epoch.
        file: where to keep them; in memory if None.
        bar: shows progress, batch by batch.

    Raises:
        StorageError: there is no room for the file.
    """

    def __init__(
        self,
        images: Loader,
        body: Body,
        *,
        width: int,
        augment: AugmentConfig | None,
        shuffle: bool,
        file: Path | None,
        bar: Bar,
    ) -> None:
        self._images, self._shuffle = images, shuffle
        self._augment, self._views = augment, views(augment)
        self._values = self._filled(body, width, file, bar)
        self.indices = images.indices

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._images)

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on; ``images`` of a batch are features (B, D)."""
        size, order = self._images.batch_size, self.indices
        if self._shuffle:
            order = order[permutation(self._images.seed, epoch, len(order))]
        for number in range(start, len(self)):
            rows = order[number * size : (number + 1) * size]
            values = torch.from_numpy(self._values[self._view(rows, epoch), rows])
            yield Batch(values, self._images.read_targets(rows), torch.from_numpy(rows.copy()))

    def _view(self, rows: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Which view each row takes: the draws are those of ``tesela.data.augment.augment``."""
        places = np.zeros(len(rows), np.int64)
        if self._augment is None:
            return places
        drawn = [np.zeros(len(rows), bool), np.zeros(len(rows), bool)]
        for axis, (purpose, share) in enumerate(
            (("hflip", self._augment.hflip), ("vflip", self._augment.vflip))
        ):
            if share:
                drawn[axis] = uniforms(self._images.seed, epoch, rows, purpose, 1)[:, 0] < share
        for place, (left, up) in enumerate(self._views):
            places[(drawn[0] == left) & (drawn[1] == up)] = place
        return places

    def _filled(self, body: Body, width: int, file: Path | None, bar: Bar) -> NDArray[np.float32]:
        shape = (len(self._views), len(self._images.items), width)
        store = Store(file, shape, key=f"{body.key} {self._views}")
        plain, noted = self._images.plain(), time.monotonic()
        bar.advance(store.done)
        for number, batch in enumerate(
            plain.epoch(0, start=store.done) if not store.complete else (), start=store.done + 1
        ):
            with body.autocast():
                for place, view in enumerate(self._views):
                    found = head_input(body.model, seen(batch.images.to(body.device), view))
                    store.values[place, batch.indices.numpy()] = found.cpu().numpy()
            bar.advance(1)
            failpoint("features.after_batch")
            if time.monotonic() - noted > NOTE_SECONDS:
                store.note(number)
                noted = time.monotonic()
        plain.close()
        store.finish(len(plain))
        return store.values


class Store:
    """An array (V, N, D), float32, in memory or in a file with a note of how many batches it has.

    Args:
        file: where; None for memory.
        shape: of the array.
        key: a file that was written under another key is written again.

    Attributes:
        values: the array.
        done: batches that are in it.
        complete: whether nothing is missing.
    """

    def __init__(self, file: Path | None, shape: tuple[int, int, int], *, key: str) -> None:
        self._file, self._key, self._shape = file, key, shape
        self.done, self.complete = 0, False
        if file is None:
            self.values: NDArray[np.float32] = np.zeros(shape, np.float32)
            return
        size = 4 * int(np.prod(shape))
        known = self._known()
        if known is not None and file.exists() and file.stat().st_size == size:
            self.done, digest = known["done"], known["sha256"]
            self.complete = digest is not None and sha256_file(file) == digest
            self.done = self.done if digest is None or self.complete else 0
        if not self.done:
            self._reserve(size)
        self.values = np.memmap(file, np.float32, mode="r+", shape=shape)

    def note(self, done: int, digest: str | None = None) -> None:
        """Write down that so many batches are in the file, once they are."""
        if self._file is not None and isinstance(self.values, np.memmap):
            self.values.flush()
            write_json(
                self._note, {"key": self._key, "shape": list(self._shape), "done": done, "sha256": digest}
            )

    def finish(self, done: int) -> None:
        """Write down that nothing is missing."""
        if self._file is not None and not self.complete and isinstance(self.values, np.memmap):
            self.values.flush()
            self.note(done, sha256_file(self._file))

    @property
    def _note(self) -> Path:
        assert self._file is not None
        return self._file.with_suffix(".json")

    def _known(self) -> dict[str, Any] | None:
        """What an earlier sitting noted, where it is about the same features."""
        try:
            found: dict[str, Any] = read_json(self._note)
            return (
                found
                if (found["key"], found["shape"]) == (self._key, list(self._shape)) and "done" in found
                else None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _reserve(self, size: int) -> None:
        file = self._file
        assert file is not None
        with storage_errors(file, needed=size):
            io_call("mkdir", lambda: file.parent.mkdir(parents=True, exist_ok=True))
            self._note.unlink(missing_ok=True)
            descriptor = io_call("open", lambda: os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644))
            try:
                if hasattr(os, "posix_fallocate"):
                    io_call("allocate", lambda: os.posix_fallocate(descriptor, 0, size))
                else:
                    io_call("truncate", lambda: os.truncate(file, size))
            finally:
                os.close(descriptor)
