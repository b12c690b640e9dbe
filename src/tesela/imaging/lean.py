"""Image files without their metadata, for another try where a reader stumbles over it.

Text, colour profiles, thumbnails and unknown blocks say nothing about the pixels, but a block that is too
large or damaged makes a reader refuse the whole file. Only blocks that the pixels need are kept; EXIF, which
holds the orientation, goes last. A truncated file stays truncated.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Chunks of a PNG that its pixels need: header, palette, transparency, pixels, end.
_PNG = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
#: Chunks of a WebP likewise: header, transparency, pixels, animation.
_WEBP = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"))
#: Flags of VP8X that announce a colour profile or XMP, and EXIF.
_WEBP_PROFILE, _WEBP_EXIF = 0x20 | 0x04, 0x08
#: Segments of a JPEG that can go: APP2 to APP13, APP15 and comments; then APP1 (EXIF). APP0 and APP14
#: (Adobe's colour transform) stay.
_JPEG_DROPPED = frozenset((*range(0xE2, 0xEE), 0xEF, 0xFE))


def versions(data: bytes, kind: str | None) -> Iterator[bytes]:
    """The file as it is, without metadata but EXIF, and without any; each only if it is shorter."""
    yield data
    strip = {"PNG": _lean_png, "JPEG": _lean_jpeg, "WEBP": _lean_webp}.get(kind or "")
    length = len(data)
    for exif in (True, False):
        lean = strip(data, exif) if strip else data
        if len(lean) < length:
            length = len(lean)
            yield lean


def _lean_png(data: bytes, exif: bool) -> bytes:
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind in _PNG or (exif and kind == b"eXIf"):
            kept.append(data[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(kept)


def _lean_jpeg(data: bytes, exif: bool) -> bytes:
    dropped = _JPEG_DROPPED if exif else _JPEG_DROPPED | {0xE1}
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xFE:
        marker = data[at + 1]
        if marker == 0xDA:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker not in dropped:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _lean_webp(data: bytes, exif: bool) -> bytes:
    kept, at = [b"WEBP"], 12
    chunks = _WEBP | {b"EXIF"} if exif else _WEBP
    flags = _WEBP_PROFILE | (0 if exif else _WEBP_EXIF)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        chunk = bytearray(data[at:end])
        if data[at : at + 4] == b"VP8X" and len(chunk) > 8:
            chunk[8] &= ~flags
        if data[at : at + 4] in chunks:
            kept.append(bytes(chunk))
        at = end
    body = b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
