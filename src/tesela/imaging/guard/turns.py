"""Turns of threads at decoding large images, with Pillow's own limit out of the way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from PIL import Image

#: Above this many pixels a process decodes one image after another, so that memory holds one of them.
LARGE_IMAGE = 50_000_000


class _Turns:
    """Who decodes a large image, and how many want Pillow's limit away."""

    def __init__(self) -> None:
        self.large, self.counting = threading.Lock(), threading.Lock()
        self.lifted = 0
        self.limit: int | None = None


_turns = _Turns()


def _begin_anew() -> None:
    """Let a forked process begin with locks that nobody holds."""
    if _turns.lifted:
        Image.MAX_IMAGE_PIXELS = _turns.limit
    _turns.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def is_large(pixels: int) -> bool:
    """Whether one at a time is decoded of images of this size."""
    return pixels > LARGE_IMAGE


@contextlib.contextmanager
def large_turn(pixels: int) -> Iterator[None]:
    """Wait until no other thread decodes a large image, if this is one; Pillow's limit is lifted then."""
    if not is_large(pixels):
        yield
        return
    with _turns.large, limit_lifted(True):
        yield


@contextlib.contextmanager
def limit_lifted(lifted: bool) -> Iterator[None]:
    """Pillow's limit of pixels out of the way, where another one has been or will be checked."""
    if not lifted:
        yield
        return
    with _turns.counting:
        if not _turns.lifted:
            _turns.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _turns.lifted += 1
    try:
        yield
    finally:
        with _turns.counting:
            _turns.lifted -= 1
            if not _turns.lifted:
                Image.MAX_IMAGE_PIXELS = _turns.limit
