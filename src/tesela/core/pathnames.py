r"""File names as text that every format can hold, and back.

A name is bytes to the file system and need not be UTF-8: cameras, old archives and network drives leave
Latin-1 behind. Python keeps such a byte as a lone surrogate, which no file and no terminal takes. Here it is
written as ``\xe9``, the way Python prints bytes; every other character stays as it is. Odd: a name that holds
the letters ``\xe9`` themselves gets its backslash written as ``\x5c``, so that the way back is unambiguous.
"""

from __future__ import annotations

import re
from pathlib import Path

#: A surrogate, or the beginning of something that would be read as an escape.
_WRITTEN = re.compile(r"[\ud800-\udfff]|\\(?=x[0-9a-f]{2}|ud[89a-f][0-9a-f]{2})")
_READ = re.compile(r"\\(?:x([0-9a-f]{2})|u(d[89a-f][0-9a-f]{2}))")


def path_text(path: Path | str) -> str:
    """The path with forward slashes, as text that encodes to UTF-8."""
    text = path.as_posix() if isinstance(path, Path) else path
    return text if text.isascii() and "\\" not in text else _WRITTEN.sub(_escaped, text)


def text_path(text: str) -> Path:
    """The path that ``path_text`` wrote."""
    return Path(_READ.sub(_unescaped, text) if "\\" in text else text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == ord("\\"):
        return "\\x5c"
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _unescaped(match: re.Match[str]) -> str:
    if match[2]:
        return chr(int(match[2], 16))
    byte = int(match[1], 16)
    return chr(byte if byte < 0x80 else 0xDC00 + byte)
