"""Batch loader: the same bits for any number of workers, resumable at any batch.

The order of an epoch is a function of (seed, epoch), augmentation of (seed, epoch, index), so batch n of
epoch e can be made alone: ``epoch(e, start=n)`` does no earlier work again. Small sets are decoded once into
memory; there ``workers`` above 0 means one thread that prepares the next batches. Large sets are streamed by
worker processes, each making whole batches. Odd: unreadable images are found when the loader is made, left
out, listed in ``unreadable``, refused above a share.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tesela.core.errors import ConfigError, TeselaError
from tesela.data.augment.augment import Augment, normalized
from tesela.data.augment.mixup import mix_images
from tesela.data.batch import Batch
from tesela.data.config import AugmentConfig
from tesela.data.random import grouped_permutation, permutation
from tesela.data.reader import RamReader, Reader, StreamReader, fits_in_ram, larger_than_view, load_all
from tesela.data.scan import Unreadable, in_threads, nothing_readable, refuse_too_many, scan
from tesela.data.source import Items, groups_of
from tesela.data.targets import LabelTargets, SpatialTargets, Targets
from tesela.hardware.ranks import ALONE, Ranks
from tesela.hardware.torch_private import stop_workers
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AHEAD = 3


class BatchMaker:
    """Makes batch n of epoch e; what worker processes get a copy of."""

    def __init__(
        self,
        reader: Reader,
        items: Items,
        rows: NDArray[np.int64],
        targets: Targets,
        spec: ImageSpec,
        *,
        batch_size: int,
        augment: Augment | None,
        seed: int,
        shuffle: bool,
        full: bool = False,
    ) -> None:
        self.full = full
        self.kept: Tensor | None = None
        self.reader, self.items, self.rows, self.targets, self.spec = reader, items, rows, targets, spec
        self.batch_size, self.augment, self.seed, self.shuffle = batch_size, augment, seed, shuffle
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.ranks = ALONE

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The rows in the epoch's order."""
        if not self.shuffle:
            return self.rows
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self.rows[self._shuffled(epoch)])
        return self._order[1]

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        groups, buffer = groups_of(self.items)
        if groups is None:
            return permutation(self.seed, epoch, len(self.rows))
        return grouped_permutation(self.seed, epoch, groups[self.rows], buffer=buffer)

    def make(self, epoch: int, number: int) -> Batch:
        """One batch, or this rank's part of it."""
        rows = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        first, (begin, end) = int(rows[0]), self.ranks.span(len(rows))
        if self.augment is not None and self.augment.config.mixes and not self.ranks.alone:
            # the partners of these images in the reversed batch, so that both reversed are pairs again
            rows = np.concatenate([rows[begin:end], rows[len(rows) - end : len(rows) - begin]])
        else:
            rows = rows[begin:end]
        batch = self._make(epoch, rows, first)
        return batch if len(rows) == end - begin else batch.first(end - begin)

    def _make(self, epoch: int, rows: NDArray[np.int64], first: int) -> Batch:
        """The batch of these rows; ``first`` is that of the batch that they are of."""
        images, boxes = self.reader.read(rows, self.seed, epoch)
        targets = self.read_targets(rows, boxes).to(images.device)
        if self.augment is not None:
            size = (images.shape[2], images.shape[3])
            images = self.augment(images, seed=self.seed, epoch=epoch, indices=rows)
            if self.targets.spatial:
                movement = self.augment.movement(size, seed=self.seed, epoch=epoch, indices=rows)
                targets = self.targets.follow(targets, movement)
        inputs = normalized(images, self.spec)
        if self.augment is not None and self.augment.config.mixes:
            config = self.augment.config
            share = mix_images(inputs, config, seed=self.seed, epoch=epoch, first=first)
            targets = self.targets.mix(targets, share=share)
        full: tuple[Tensor, ...] = ()
        if self.full and isinstance(self.targets, SpatialTargets):
            full = tuple(torch.from_numpy(self.targets.full(self.items, int(row))) for row in rows)
        return Batch(inputs, targets, torch.from_numpy(rows.copy()), full=full)

    def read_targets(self, rows: NDArray[np.int64], boxes: NDArray[np.float64] | None = None) -> Tensor:
        """(B, ...) targets of some images, neither warped nor mixed."""
        if self.kept is not None:
            return self.kept[torch.from_numpy(rows)]
        return torch.from_numpy(self.targets.read(self.items, rows, self.spec, boxes=boxes))

    def keep_targets(self) -> None:
        """Read all targets now and keep them in memory."""
        found = in_threads(lambda row: self.targets.read(self.items, self.rows[row : row + 1], self.spec)[0],
                           len(self.rows))  # fmt: skip
        every = torch.zeros(0)
        for place, target in enumerate(found):
            one = torch.from_numpy(np.asarray(target))
            if not place:
                every = torch.zeros((len(self.items), *one.shape), dtype=one.dtype)
            every[int(self.rows[place])] = one
        self.kept = every


class Loader:
    """Batches of some items.

    Args:
        items: images with targets.
        spec: the model's view.
        batch_size: images per batch.
        augment: for training; None leaves images as evaluation sees them.
        seed: of order and augmentation.
        workers: processes that read (or 0); never changes a bit.
        cache: ram, none, or auto (see reader.fits_in_ram); crops of images that are larger than the model's
            view are decoded each time.
        shuffle: a new order each epoch.
        least: leave out a last batch of fewer images, unless it is the only one.
        targets: how targets are read and follow their images; by default the stored classes.
        device: where a memory cache lies and batches are made; streamed batches are always made on the CPU.
        max_unreadable: largest share of unreadable images.
        full: give spatial targets at the images' own sizes too.

    Raises:
        DataError: too many images are unreadable, or none is left.
    """

    def __init__(
        self,
        items: Items,
        spec: ImageSpec,
        *,
        batch_size: int,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        workers: int | Literal["auto"] = 0,
        cache: Literal["auto", "ram", "none"] = "auto",
        shuffle: bool = False,
        least: int = 1,
        targets: Targets | None = None,
        device: torch.device | str = "cpu",
        max_unreadable: float = 0.01,
        full: bool = False,
    ) -> None:
        crops = augment is not None and augment.random_resized_crop
        self.items, self.spec, self.batch_size = items, spec, batch_size
        # decided by the images alone, so that the cache changes no bit
        details = crops and larger_than_view(items, spec)
        self.in_ram = not details and (cache == "ram" or (cache == "auto" and fits_in_ram(items, spec)))
        augmenter = Augment(augment, spec, cropped=details) if augment is not None else None
        reader, self.unreadable = self._read(augmenter if details else None, device)
        refuse_too_many(self.unreadable, len(items), limit=max_unreadable)
        rows = np.setdiff1d(np.arange(len(items)), [bad.index for bad in self.unreadable])
        if len(items) and not len(rows):
            raise nothing_readable(items)
        self.workers = _default_workers(self.in_ram) if workers == "auto" else workers
        whole, rest = divmod(len(rows), batch_size)
        self._length = whole + (rest > 0 and (rest >= least or not whole))
        self._maker = BatchMaker(
            reader,
            items,
            rows,
            targets or LabelTargets(()),
            spec,
            batch_size=batch_size,
            augment=augmenter,
            seed=seed,
            shuffle=shuffle,
            full=full,
        )
        if self.in_ram and self._maker.targets.spatial and len(rows):
            self._maker.keep_targets()
        self._processes: _Processes | None = None

    def _read(self, augmenter: Augment | None, device: torch.device | str) -> tuple[Reader, list[Unreadable]]:
        if self.in_ram:
            images, unreadable = load_all(self.items, self.spec)
            return RamReader(images.to(device)), unreadable
        return StreamReader(self.items, self.spec, augmenter), scan(self.items)

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._length

    @property
    def indices(self) -> NDArray[np.int64]:
        """Numbers of the images that can be read, ascending."""
        return self._maker.rows

    @property
    def seed(self) -> int:
        """Of order and augmentation."""
        return self._maker.seed

    @property
    def augment(self) -> AugmentConfig | None:
        """What is done to the images, or None."""
        return None if self._maker.augment is None else self._maker.augment.config

    def read_targets(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, ...) targets of some images, as stored: neither warped nor mixed."""
        return self._maker.read_targets(rows)

    def plain(self) -> Loader:
        """The same images as evaluation sees them, each once, in ascending order.

        Pixels that are in memory are shared.
        """
        found, maker = copy.copy(self), copy.copy(self._maker)
        maker.augment, maker.shuffle, maker._order, maker.ranks = None, False, None, ALONE
        found._maker, found._processes = maker, None
        found._length = math.ceil(len(maker.rows) / self.batch_size)
        return found

    def check_shares(self, ranks: Ranks) -> None:
        """Refuse batches of which some rank would have no image.

        Raises:
            ConfigError: a batch has fewer images than there are ranks.
        """
        rest = self.num_images - (len(self) - 1) * self.batch_size
        least = min(self.batch_size, rest)
        if least < ranks.count:
            raise ConfigError(
                f"a batch of {least} images cannot be shared by {ranks.count} processes",
                hint="tesela train DATA --batch-size 64, or start fewer processes",
            )

    def share(self, ranks: Ranks) -> None:
        """Make only this rank's part of each batch from now on."""
        self.close()  # worker processes have copies of the maker
        self._maker.ranks = ranks

    @property
    def num_images(self) -> int:
        """Images that can be read."""
        return len(self._maker.rows)

    def making_seconds(self, *, repeats: int = 3) -> float:
        """Seconds that one batch takes to make in this process, the shortest of a few."""
        found = []
        for number in range(repeats):
            begin = time.perf_counter()
            self._maker.make(0, number % len(self))
            found.append(time.perf_counter() - begin)
        return min(found)

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on.

        Raises:
            DataError: an image became unreadable since the loader was made.
        """
        if self.workers == 0:
            return (self._maker.make(epoch, number) for number in range(start, len(self)))
        if self.in_ram:
            return self._ahead(epoch, start)
        if self._processes is None:
            self._processes = _Processes(self._maker, self.workers)
        return self._processes.epoch(epoch, range(start, len(self)))

    def _ahead(self, epoch: int, start: int) -> Iterator[Batch]:
        """One thread makes the next batches while the caller works."""
        with ThreadPoolExecutor(1, thread_name_prefix="tesela-batches") as pool:
            waiting: list[Future[Batch]] = []
            try:
                for number in range(start, len(self)):
                    waiting.append(pool.submit(self._maker.make, epoch, number))
                    if len(waiting) >= _AHEAD:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def close(self) -> None:
        """Stop the worker processes, if any; the next epoch starts new ones."""
        if self._processes is not None:
            self._processes.close()
        self._processes = None


class _Processes:
    """Worker processes that live over epochs; each is asked for whole batches by (epoch, number)."""

    def __init__(self, maker: BatchMaker, workers: int, *, context: str | None = None) -> None:
        self._plan = _Plan()
        # one batch is one element: torch neither collates nor seeds anything here
        with more_workers_than_cores():
            self._loader: DataLoader[Any] = DataLoader(
                _Batches(maker),
                batch_size=None,
                sampler=self._plan,
                num_workers=workers,
                persistent_workers=True,
                multiprocessing_context=context,
            )

    def epoch(self, epoch: int, numbers: range) -> Iterator[Batch]:
        self._plan.wanted = [(epoch, number) for number in numbers]
        with more_workers_than_cores():
            results = iter(self._loader)
        for result in results:
            if isinstance(result, TeselaError):
                self.close()
                raise result
            yield result

    def close(self) -> None:
        """Stop the processes now: left to the garbage collector each can keep it waiting for five seconds."""
        stop_workers(self._loader)


@contextlib.contextmanager
def more_workers_than_cores() -> Iterator[None]:
    """Keep torch from warning about it: the number of workers is the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


class _Plan(Sampler[tuple[int, int]]):
    """The (epoch, number) pairs to ask for next."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.wanted)

    def __len__(self) -> int:
        return len(self.wanted)


class _Batches(Dataset[Any]):
    """Lets torch's workers call the maker.

    Our own errors travel as values, because torch would rebuild them wrongly.
    """

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker

    def __getitem__(self, key: tuple[int, int]) -> Batch | TeselaError:
        try:
            return self._maker.make(*key)
        except TeselaError as error:
            return error


def _default_workers(in_ram: bool) -> int:
    return 0 if in_ram else min(8, os.cpu_count() or 1)
