"""Request bodies within limits: bytes and time; compressed bodies are refused.

A form is parsed from the bytes in memory, with one file and a few small fields at most; nothing is spooled to
disk, and the file's name as the client gave it is never used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tesela.serve.config import ServeConfig
from tesela.serve.errors import RefusedError

#: Content types of a body that is the image itself, beside every ``image/...``: those that clients send which
#: name none. The format is recognised by the content, so a type decides nothing but what is no image at all.
RAW_TYPES = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"}
)
FORM_TYPE = "multipart/form-data"


async def read_image(request: Request, config: ServeConfig) -> bytes:
    """The image's bytes out of a raw body or a form.

    Raises:
        RefusedError: the body is too large, too slow, compressed, or of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError("content_encoding")
    if kind not in RAW_TYPES and kind != FORM_TYPE and not kind.startswith("image/"):
        raise RefusedError("content_type")
    try:
        async with asyncio.timeout(config.body_seconds):
            body = await read_body(request, most=config.max_bytes)
    except TimeoutError:
        raise RefusedError("body_too_slow") from None
    return await file_of_form(request, body) if kind == FORM_TYPE else body


async def read_body(request: Request, *, most: int) -> bytes:
    """The whole body, refused as soon as it is known to be longer than ``most`` bytes."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise RefusedError("body_too_large")
    body = bytearray()
    try:
        async for chunk in request.stream():
            if len(body) + len(chunk) > most:
                raise RefusedError("body_too_large")
            body += chunk
    except ClientDisconnect:
        raise RefusedError("bad_request") from None
    return bytes(body)


async def file_of_form(request: Request, body: bytes) -> bytes:
    """The content of the form's only file."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=8, max_part_size=4096)
    parser.spool_max_size = len(body) + 1  # in memory: no client reaches the file system
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError):
        raise RefusedError("bad_multipart") from None
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if not files:
        raise RefusedError("missing_file")
    try:
        return await files[0].read()
    finally:
        await form.close()
