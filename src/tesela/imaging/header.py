"""Format and size of an image from its first bytes, before any decoder or allocation.

JPEG's markers, PNG's IHDR and WebP's first chunk are read here, so that a decompression bomb is refused for
the price of a few comparisons. Other formats are recognised by their signatures; those that cannot be opened
are named in the refusal. A header that cannot be followed gives a size of None: the decoder then has the last
word.
"""

from __future__ import annotations

from dataclasses import dataclass

from tesela.imaging.jpeg import is_fast

#: Leading bytes of formats that people do put among their images. WebP, AVIF and HEIC need a look at byte 4
#: or 8.
SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x01\x00", "ICO"),
)
#: Brands of ISO media files, the more telling ones first: ``mif1`` alone says only that it is an image.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
}
#: Brands of an ISO media file that are looked at.
_MOST_BRANDS = 16
#: Start-of-frame markers of JPEG; C4, C8 and CC are tables, not frames.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: APP1, which holds EXIF and XMP.
_EXIF = 0xE1
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
#: Frames that are decoded in several passes.
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
#: Bytes of a pixel in readers that hold several pictures of it: WebP's has two canvases beside its own.
_DEPTHS = {"WEBP": 16.0}
#: Steps of the walk up to a JPEG's first scan: readers take a time for each, be it a segment or a fill byte.
MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Header:
    """Facts in the first bytes of an image file.

    Attributes:
        format: Pillow's name of the format, or None where it is unknown.
        size: (height, width) as stored (EXIF not applied), or None where it was not found.
        plain: a JPEG of three channels without EXIF or XMP: it is upright, nothing else has to be read before
            decoding.
        scans_at: where the first of a JPEG's several scans begins; 0 if it has one, as most have.
        endless: a JPEG whose first scan is not reached after many segments.
        depth: bytes of memory that a reader takes for a pixel, as far as the first bytes tell.
    """

    format: str | None
    size: tuple[int, int] | None
    plain: bool = False
    scans_at: int = 0
    endless: bool = False
    depth: float = 4


def read_header(data: bytes, *, steps: int = MOST_STEPS) -> Header:
    """Recognise the format and find the stored size.

    Args:
        data: the file.
        steps: segments and fill bytes of a JPEG up to its first scan after which the walk is given up.
    """
    kind = recognise(data)
    if kind == "JPEG":
        return _jpeg_header(data, steps)
    reader = {"PNG": _png_size, "WEBP": _webp_size, "GIF": _gif_size, "BMP": _bmp_size}.get(kind or "")
    depth = _png_depth(data) if kind == "PNG" else _DEPTHS.get(kind or "", 4)
    return Header(kind, reader(data) if reader else None, depth=depth)


def recognise(data: bytes) -> str | None:
    """The format's name by signature, or None."""
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
        brands = {data[at : at + 4] for at in (8, *range(16, end - 3, 4))}
        return next((kind for brand, kind in _BRANDS.items() if brand in brands), None)
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\r\n#" and len(data) > 6:
        return "PPM"
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _png_depth(data: bytes) -> float:
    """Bytes of a pixel in Pillow's memory by the bit depth and colour type of IHDR."""
    if len(data) < 26 or data[25] not in (0, 3):
        return 4
    return 2 if data[24] == 16 else 1


def _gif_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10:
        return None
    return int.from_bytes(data[8:10], "little"), int.from_bytes(data[6:8], "little")


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 26 or int.from_bytes(data[14:18], "little") < 40:
        return None
    height = int.from_bytes(data[22:26], "little", signed=True)
    return abs(height), int.from_bytes(data[18:22], "little")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if chunk == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return None


def _jpeg_header(data: bytes, most: int) -> Header:
    """Walk the marker segments up to the first scan; the frame header among them has the size."""
    size, plain, at, end = None, True, 2, len(data)
    components, passes, scans_at, steps, samples = 3, False, 0, 0, 3.0
    while at + 4 <= end and steps < most:
        steps += 1
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at = data.find(b"\xff", at + (data[at] == 0xFF))
            if at < 0:
                break
        elif marker in _BARE or marker == 0:
            at += 2
        elif marker == 0xD9:
            break
        elif marker == 0xDA:
            if passes or (at + 5 <= end and data[at + 4] < components):
                scans_at = at
            break
        else:
            if marker in _FRAMES and size is None and at + 10 <= end:
                size = (
                    int.from_bytes(data[at + 5 : at + 7], "big"),
                    int.from_bytes(data[at + 7 : at + 9], "big"),
                )
                components, passes = data[at + 9], marker in _PROGRESSIVE
                samples = _samples(data[at + 10 : at + 10 + 3 * components])
                plain &= components == 3
            plain &= marker != _EXIF
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return Header(
        "JPEG",
        size,
        plain and size is not None,
        scans_at=scans_at,
        endless=steps == most,
        # coefficients of all passes are kept, two bytes each, beside the pixels; Pillow's colours have four
        depth=(4 if components == 4 or (components == 3 and not is_fast()) else components)
        + (2 * samples if scans_at else 0),
    )


def _samples(parts: bytes) -> float:
    """Samples of all components for each pixel: 3 of a colour image, 1.5 where its chroma is halved."""
    factors = [(part >> 4, part & 15) for part in parts[1::3]]
    across, down = max((one for one, _ in factors), default=0), max((one for _, one in factors), default=0)
    return sum(one * other for one, other in factors) / (across * down) if across and down else 4.0
