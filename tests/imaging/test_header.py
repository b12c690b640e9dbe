"""Sizes read from the first bytes of files that Pillow wrote, for sides below and above 256."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from tesela.imaging.header import read_header

FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "RGB", {}),
    "jpeg": ("JPEG", "RGB", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "lossy webp": ("WEBP", "RGB", {"lossless": False}),
    "lossless webp": ("WEBP", "RGB", {"lossless": True}),
    "webp with alpha": ("WEBP", "RGBA", {"lossless": False}),
}


@pytest.mark.parametrize("size", [(3, 5), (255, 257), (300, 517), (1025, 640)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_size(form: str, size: tuple[int, int]) -> None:
    kind, mode, options = FORMS[form]
    stream = io.BytesIO()
    Image.new(mode, size, (200, 10, 60, 90)[: len(mode)]).save(stream, kind, **options)
    assert read_header(stream.getvalue()).size == (size[1], size[0])
