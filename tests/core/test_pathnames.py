"""Names of any bytes as text and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesela.core.pathnames import path_text, text_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"caf\xe9.png", "caf\\xe9.png"),
        ("café.png".encode(), "café.png"),
        (b"lit\\xe9.png", "lit\\x5cxe9.png"),
        (b"back\\slash.png", "back\\slash.png"),
        (b"\xff/\xfe", "\\xff/\\xfe"),
        ("a\u2028b\n.png".encode(), "a\u2028b\n.png"),
        (b"50%E9#1.png", "50%E9#1.png"),
    ],
)
def test_bytes_are_written_as_python_prints_them(name: bytes, text: str) -> None:
    assert path_text(os.fsdecode(name)) == text
    assert os.fsencode(text_path(text)) == name


@given(st.binary(max_size=40).filter(lambda name: b"\0" not in name))
def test_every_name_comes_back(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    text = path_text(path)
    text.encode()
    assert text_path(text) == path


@given(st.text(alphabet="\\xu5ce9\udce9\ud83d/", max_size=12))
def test_names_that_look_like_escapes_come_back(name: str) -> None:
    text = path_text(name)
    text.encode()
    assert str(text_path(text)) == str(Path(name))
