"""Error codes of the server, a closed list, as problem details (RFC 9457).

Texts are written here, or come from tesela's own image errors; nothing of a path, a stack or a version can
get in. An unforeseen exception becomes ``internal_error`` and is logged on the server's side only.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from tesela.core.errors import ImageError

log = logging.getLogger("tesela.serve")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A row of the list."""

    status: int
    message: str
    hint: str


FORM = "send one file in a field named file, or several in fields named image"

#: code -> what a client gets. Image codes are those of ``tesela.imaging.decode.CODES`` and ``wrong_size``.
REFUSALS: dict[str, Refusal] = {
    "corrupt": Refusal(status=422, message="the image is damaged", hint="send another file"),
    "empty": Refusal(status=422, message="the file is empty", hint="send an image"),
    "file_too_large": Refusal(status=413, message="the file has too many bytes", hint="send a smaller file"),
    "format_not_allowed": Refusal(
        status=415, message="this image format is not taken", hint="send JPEG or PNG"
    ),
    "not_an_image": Refusal(status=415, message="this is no image", hint="send JPEG or PNG"),
    "too_many_pixels": Refusal(
        status=413, message="the image has too many pixels", hint="send a smaller image"
    ),
    "too_much_work": Refusal(
        status=422,
        message="the image takes too long to decode",
        hint="save it again as a baseline JPEG or a PNG",
    ),
    "truncated": Refusal(status=422, message="the image ends too early", hint="send the whole file"),
    "unreadable_file": Refusal(status=422, message="the image cannot be read", hint="send another file"),
    "unsupported_mode": Refusal(
        status=422,
        message="the image's pixels have no 8-bit meaning",
        hint="convert it to 8 bits per channel",
    ),
    "wrong_size": Refusal(
        status=422,
        message="the image has not the size that the model takes",
        hint="GET /v1/models tells the size",
    ),
    "zero_size": Refusal(status=422, message="the image has no pixels", hint="send another file"),
    "body_too_large": Refusal(
        status=413, message="the request's body is too large", hint="send a smaller file"
    ),
    "body_too_slow": Refusal(
        status=408, message="the request's body did not arrive in time", hint="send it again"
    ),
    "content_encoding": Refusal(
        status=415, message="compressed bodies are not taken", hint="send the file as it is"
    ),
    "content_type": Refusal(
        status=415,
        message="this content type is not taken",
        hint="send the image as the body with its image/... type, or a form as multipart/form-data",
    ),
    "bad_multipart": Refusal(
        status=400,
        message="the form cannot be read",
        hint=FORM,
    ),
    "missing_file": Refusal(
        status=400,
        message="the form holds no file",
        hint=FORM,
    ),
    "bad_parameter": Refusal(
        status=422, message="a parameter has a value that is not taken", hint="see /openapi.json"
    ),
    "unknown_class": Refusal(
        status=422, message="the model has no such class", hint="GET /v1/models lists the classes"
    ),
    "unknown_model": Refusal(
        status=404, message="there is no such model", hint="GET /v1/models lists the models"
    ),
    "explain_unavailable": Refusal(
        status=409,
        message="this model cannot be explained here",
        hint="serve a bundle with model.safetensors where torch is installed",
    ),
    "no_attention": Refusal(
        status=409,
        message="this model's layers do not attend among one grid of patches",
        hint="ask for a heat map instead: POST /v1/explain",
    ),
    "no_maps": Refusal(
        status=409,
        message="this model was exported without its heat maps",
        hint="export it with them: tesela export RUN --to onnx --with-map; or serve the run itself",
    ),
    "fixed_explanation": Refusal(
        status=409,
        message="this exported model explains the class that it predicts, without further settings",
        hint="send method alone; or serve the run that it was exported from",
    ),
    "unauthorized": Refusal(
        status=401, message="an API key is needed", hint="send it as: Authorization: Bearer KEY"
    ),
    "wrong_host": Refusal(
        status=421,
        message="this server does not answer to that host name",
        hint="use the address it was started on",
    ),
    "wrong_origin": Refusal(
        status=403,
        message="pages of other sites may not use this server",
        hint="open the page at the address of the server itself",
    ),
    "rate_limited": Refusal(
        status=429, message="too many requests with this key", hint="send them more slowly"
    ),
    "not_found": Refusal(status=404, message="there is nothing at this address", hint="see /openapi.json"),
    "method_not_allowed": Refusal(
        status=405, message="this method is not taken here", hint="see /openapi.json"
    ),
    "bad_request": Refusal(status=400, message="the request cannot be understood", hint="see /openapi.json"),
    "overloaded": Refusal(
        status=503, message="the server has too much to do", hint="try again a little later"
    ),
    "deadline": Refusal(status=503, message="the request waited too long", hint="try again a little later"),
    "stopping": Refusal(status=503, message="the server is stopping", hint="try again a little later"),
    "internal_error": Refusal(
        status=500, message="the server failed", hint="try again; the server's log tells more"
    ),
}

#: Content type of a refusal.
PROBLEM = "application/problem+json"

#: Seconds after which a client should come back after a 429 or 503, at least and at most.
RETRY_AFTER, LATEST_RETRY = 1, 60


class RefusedError(Exception):
    """Ends a request with a code of REFUSALS.

    Args:
        code: of the list.
        wait: seconds until there is room again, where that is known.
    """

    def __init__(self, code: str, *, wait: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.headers = {} if wait <= RETRY_AFTER else {"Retry-After": str(min(math.ceil(wait), LATEST_RETRY))}


def respond(code: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer that belongs to a code."""
    refusal = REFUSALS[code]
    extra = dict(headers or {})
    if refusal.status in (429, 503):
        extra.setdefault("Retry-After", str(RETRY_AFTER))
    if refusal.status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    if refusal.status in (408, 413):
        extra.setdefault("Connection", "close")  # the rest of the body is not read
    return JSONResponse(problem(code), refusal.status, headers=extra, media_type=PROBLEM)


def problem(code: str) -> dict[str, Any]:
    """The body of a refusal: members of RFC 9457, its code, and the texts as ``message`` and ``hint``."""
    refusal = REFUSALS[code]
    return {
        "type": "about:blank",
        "title": refusal.message,
        "status": refusal.status,
        "code": code,
        "detail": refusal.hint,
        "message": refusal.message,
        "hint": refusal.hint,
    }


def image_code(error: ImageError) -> str:
    """The code for an image error; one that is not on the list counts as damaged."""
    return error.code if error.code in REFUSALS else "corrupt"


async def on_refused(_: Request, error: Exception) -> JSONResponse:
    """Answer a RefusedError."""
    assert isinstance(error, RefusedError)
    return respond(error.code, headers=error.headers)


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """Answer what the framework itself refuses (unknown address, wrong method)."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return respond(code, headers=dict(error.headers or {}))


async def on_invalid(_: Request, __: Exception) -> JSONResponse:
    """Answer a parameter that does not fit the OpenAPI document; its value is not repeated."""
    return respond("bad_parameter")
