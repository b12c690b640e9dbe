"""Checksums of the chunks of a PNG that its pixels need.

Pillow leaves them unread, and a flipped bit must not pass as an image.
"""

from __future__ import annotations

import zlib

#: Chunks that the pixels need.
_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT"))


def broken_chunk(data: bytes) -> bool:
    """Whether a chunk of a PNG that its pixels need has another checksum than its content.

    A checksum that is cut off is not looked at; a truncated file is the reader's to judge.
    """
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if kind == b"IEND" or end + 4 > len(data):
            return False
        if kind in _NEEDED and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return True
        at = end + 4
    return False
