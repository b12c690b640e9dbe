r"""Lettering of pictures in any script: a font that covers the text, or it is written out.

DejaVu Sans is taken where it serves (Latin, Greek, Cyrillic, Arabic, Hebrew and more), else the first font of
this machine that has all characters. What no font has is written as ``\u65e5`` instead of empty boxes. Odd:
letters are joined and ordered (Arabic, Devanagari) by the Raqm library in Pillow, where that is there.
"""

from __future__ import annotations

import functools
import os
import sys
import unicodedata
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

#: Files that are tried first: what Linux, Windows and macOS bring for many scripts.
_FIRST = (
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "NotoSans-Regular.ttf"),
    *("NotoSansDevanagari-Regular.ttf", "Lohit-Devanagari.ttf", "NotoSansArabic-Regular.ttf", "FreeSans.ttf"),
    *("segoeui.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Nirmala.ttc", "Nirmala.ttf", "arial.ttf"),
    *("Arial Unicode.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Kohinoor.ttc"),
)
_ENDINGS = (".ttf", ".otf", ".ttc")
#: Fonts of a machine that are looked into at most.
_MOST = 400
#: A code point that no font has a glyph for.
_NONE = "\U0010fffe"


def lettering(text: str, size: int) -> tuple[str, Font]:
    """The text as it can be drawn, and the font to draw it with.

    Args:
        text: one line.
        size: of the letters in pixels.
    """
    text = unicodedata.normalize("NFC", text)
    needed = frozenset(character for character in text if _draws(character))
    font = _font_for(needed, size)
    if font is None:
        font = _usual(size)
        text = "".join(
            character if not _draws(character) or _covers(font, character) else _written(character)
            for character in text
        )
    return text, font


def shortened(text: str, size: int, room: float) -> tuple[str, Font]:
    """As ``lettering``, cut to ``room`` pixels."""
    shown, font = lettering(text, size)
    while len(shown) > 1 and font.getlength(shown) > room:
        shown = shown[:-2].rstrip() + "…"
    return shown, font


def _draws(character: str) -> bool:
    """Whether a character has a shape: no space, control or choice of a variant."""
    return unicodedata.category(character)[0] not in "ZC" and not "\ufe00" <= character <= "\ufe0f"


def _written(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


@functools.lru_cache(1024)
def _font_for(needed: frozenset[str], size: int) -> Font | None:
    """A font that has all these characters."""
    usual = _usual(size)
    if all(_covers(usual, character) for character in needed):
        return usual
    for path in _fonts():
        try:
            font = ImageFont.truetype(path, size)
            if all(_covers(font, character) for character in needed):
                return font
        except OSError:
            continue
    return None


@functools.cache
def _usual(size: int) -> Font:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


@functools.lru_cache(_MOST)
def _without_shaping(font: Font) -> Font:
    """The same font, drawing each character as it is (a mark gets no circle to stand on)."""
    return (
        font.font_variant(layout_engine=ImageFont.Layout.BASIC)
        if isinstance(font, ImageFont.FreeTypeFont)
        else font
    )


def _covers(font: Font, character: str) -> bool:
    """Whether the font's picture of a character differs from that of a character that it has not."""
    plain = _without_shaping(font)
    found, none = plain.getmask(character), plain.getmask(_NONE)
    return found.getbbox() is not None and (found.size != none.size or bytes(found) != bytes(none))


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Font files of this machine, those of ``_FIRST`` before others."""
    found: dict[str, str] = {}
    for root in _folders():
        for place, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(_ENDINGS):
                    found.setdefault(name, str(Path(place, name)))
    first = [found.pop(name) for name in _FIRST if name in found]
    plain = [
        path for name, path in found.items() if "bold" not in name.lower() and "italic" not in name.lower()
    ]
    return (*first, *plain)[:_MOST]


def _folders() -> list[Path]:
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return [*(Path(folder, "fonts") for folder in (own, *shared.split(":"))), Path.home() / ".fonts"]
