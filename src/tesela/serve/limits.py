"""Request bodies within limits: bytes and time; compressed bodies are refused.

A form is parsed from the bytes in memory, with a bounded number of files and a few small fields; nothing is
spooled to disk, and a file's name as the client gave it is only sent back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

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


#: Names of the parts of a form that is a batch and of its only file, and characters of a file's name that are
#: sent back.
BATCH_PART, FILE_PART, MOST_NAME = "image", "file", 255


@dataclass(frozen=True, slots=True)
class Upload:
    """Images of a request.

    Attributes:
        images: each file's name, as the client gave it, and content.
        batch: the request was a form of parts named ``image``, whose answer is a list.
    """

    images: tuple[tuple[str, bytes], ...]
    batch: bool = False


async def read_image(request: Request, config: ServeConfig) -> bytes:
    """The only image of a raw body or a form.

    Raises:
        RefusedError: there are several, or as of ``read_upload``.
    """
    upload = await read_upload(request, config)
    if len(upload.images) > 1:
        raise RefusedError("bad_multipart")
    return upload.images[0][1]


async def read_upload(request: Request, config: ServeConfig) -> Upload:
    """The images of a raw body or a form.

    Raises:
        RefusedError: the form cannot be read, or as of ``checked_body``.
    """
    body = await checked_body(request, config)
    if content_type(request) != FORM_TYPE:
        return Upload((("", body),))
    return await files_of_form(request, body, most=config.max_parts)


async def checked_body(request: Request, config: ServeConfig) -> bytes:
    """The whole body of a request that may hold images.

    Raises:
        RefusedError: the body is too large, too slow, compressed, or of another type.
    """
    kind = content_type(request)
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError("content_encoding")
    if kind not in RAW_TYPES and kind != FORM_TYPE and not kind.startswith("image/"):
        raise RefusedError("content_type")
    try:
        async with asyncio.timeout(config.body_seconds):
            return await read_body(request, most=config.max_bytes)
    except TimeoutError:
        raise RefusedError("body_too_slow") from None


def content_type(request: Request) -> str:
    """The content type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


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


async def files_of_form(request: Request, body: bytes, *, most: int) -> Upload:
    """The files of a form: one of any name, or at most ``most`` that are all named ``image``."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=most, max_fields=8, max_part_size=4096)
    parser.spool_max_size = len(body) + 1  # in memory: no client reaches the file system
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError):
        raise RefusedError("bad_multipart") from None
    try:
        files = [(field, value) for field, value in form.multi_items() if isinstance(value, UploadFile)]
        texts = {field for field, value in form.multi_items() if not isinstance(value, UploadFile)}
        if texts & {BATCH_PART, FILE_PART}:  # an image that was sent as text would be passed over
            raise RefusedError("bad_multipart" if files else "missing_file")
        batch = all(field == BATCH_PART for field, _ in files)
        if not files:
            raise RefusedError("missing_file")
        if len(files) > 1 and not batch:
            raise RefusedError("bad_multipart")
        contents = [((value.filename or "")[:MOST_NAME], await value.read()) for _, value in files]
        return Upload(tuple(contents), batch)
    finally:
        await form.close()
