"""Turns of threads at decoding large images and at lifting Pillow's own limit."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from PIL import Image

#: Above this many pixels a process decodes one image after another, so that memory holds one of them.
LARGE = 50_000_000


class _Turns:
    """The two locks."""

    def __init__(self) -> None:
        self.large, self.limit = threading.Lock(), threading.Lock()


_turns = _Turns()


def _begin_anew() -> None:
    """Let a forked process begin with locks that nobody holds."""
    _turns.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextlib.contextmanager
def large_turn(pixels: int) -> Iterator[None]:
    """Wait until no other thread decodes a large image, if this is one."""
    if pixels <= LARGE:
        yield
        return
    with _turns.large:
        yield


@contextlib.contextmanager
def limit_lifted(lifted: bool) -> Iterator[None]:
    """Pillow's limit of pixels out of the way, where another one has been or will be checked."""
    if not lifted:
        yield
        return
    with _turns.limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
