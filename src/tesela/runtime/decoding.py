"""Decoding ahead: images become views in threads, between computations or beside them.

Where a network computes on all cores of the processor, threads that decode beside it make its own threads
wait for one another: turns take less time. Files to come are read by the system meanwhile.

Ordinary JPEG and PNG files, whose work is counted before they are decoded, and pixels go to the threads. All
else is decoded where the results are wanted: the limit on processor time, which ends a hostile file, works in
the main thread only.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ImageError
from tesela.hardware.machine import cores
from tesela.imaging.header import read_header
from tesela.imaging.limits import DecodeLimits
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.runtime.stored import ImageSource, StoredImage, content

#: A view (h, w, C), uint8, with the image's own (height, width); or why there is none.
FittedView: TypeAlias = "tuple[NDArray[np.uint8], tuple[int, int]] | ImageError"

#: Formats whose work is counted ahead, and the pixels up to which threads decode them.
ORDINARY, MOST_PIXELS = ("JPEG", "PNG"), 20_000_000
MOST_THREADS = 8


def decode_ahead(
    sources: Iterable[ImageSource],
    spec: ImageSpec,
    *,
    limits: DecodeLimits,
    ahead: int,
    turns: bool = False,
) -> Generator[tuple[ImageSource, FittedView]]:
    """Each source with its view, in order.

    Args:
        sources: images; an iterator is consumed as far ahead as images are decoded, or one turn further.
        spec: the model's view.
        limits: of decoding.
        ahead: images that are decoded or wait at most.
        turns: whether so many images are decoded at once, and no others until they are taken; those that come
            from a network are decoded when they are there all the same.
    """
    threads = min(cores(), MOST_THREADS)
    # the limit counts the processor time of all threads
    shared = replace(limits, seconds=limits.seconds and limits.seconds * (1 + threads))
    waiting: deque[tuple[ImageSource, Future[FittedView | None]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tesela-decode")

    def taken() -> tuple[ImageSource, FittedView]:
        source, future = waiting.popleft()
        view = future.result()
        return source, _view(source, spec, shared) if view is None else view

    def begun(source: ImageSource) -> Future[FittedView | None]:
        return pool.submit(_ordinary_view, source, spec, limits)

    def expected() -> list[tuple[ImageSource, Future[FittedView | None] | None]]:
        """The next turn's images: what takes no core is begun."""
        chunk = list(islice(todo, ahead))
        for source in chunk:
            _expect(source)
        return [(source, begun(source) if isinstance(source, StoredImage) else None) for source in chunk]

    todo = iter(sources)
    try:
        if turns:
            coming = expected()
            while coming:
                waiting.extend((source, future or begun(source)) for source, future in coming)
                coming = expected()
                wait([future for _, future in waiting])
                while waiting:
                    yield taken()
            return
        for source in todo:
            waiting.append((source, begun(source)))
            if len(waiting) > ahead:
                yield taken()
        while waiting:
            yield taken()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _expect(source: ImageSource) -> None:
    """Let the system read a file that will be wanted soon."""
    if isinstance(source, Path) and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            file = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)


def _view(source: ImageSource, spec: ImageSpec, limits: DecodeLimits) -> FittedView:
    try:
        return fitted_view(content(source), spec, limits=limits)
    except ImageError as error:
        return error


def _ordinary_view(source: ImageSource, spec: ImageSpec, limits: DecodeLimits) -> FittedView | None:
    """The view of an ordinary image; None for others, and for files that cannot be read."""
    if isinstance(source, np.ndarray):
        return _view(source, spec, limits)
    try:
        if isinstance(source, Path) and source.stat().st_size > limits.max_bytes:
            return None
        if isinstance(source, StoredImage):
            data = source.data()
        else:
            data = source if isinstance(source, bytes) else source.read_bytes()
    except ImageError as error:
        return error
    except OSError:
        return None
    header = read_header(data)
    if header.format not in ORDINARY or header.size is None or header.size[0] * header.size[1] > MOST_PIXELS:
        return None
    return _view(data, spec, limits)
