"""The web app, as `make web` builds it: files of `static/` at a closed list of addresses.

The OpenAPI document is served in the same way. All are held in memory, also compressed, and are named by a
digest so that a browser that has them asks once and gets no body.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request, Response

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: The server's policy keeps images, scripts and styles to this host; revalidation keeps a page and its parts
#: of one build together.
CACHING = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Address -> (content type, content)."""
    files: dict[str, tuple[str, bytes]] = {}
    for part in sorted((resources.files("tesela.serve") / "static").iterdir(), key=lambda part: part.name):
        kind = KINDS.get(part.name[part.name.rfind(".") :])
        if kind is not None:
            address = "/" if part.name == "index.html" else f"/static/{part.name}"
            files[address] = (kind, part.read_bytes())
    return files


def page_routes() -> APIRouter:
    """The page and its parts, from memory."""
    router = APIRouter(include_in_schema=False)
    for path, (kind, content) in page_files().items():
        add_part(router, path, kind, content)
    return router


def document_route(document: Mapping[str, Any]) -> APIRouter:
    """The OpenAPI document, written once: many who ask for it cost little."""
    router = APIRouter(include_in_schema=False)
    add_part(router, "/openapi.json", "application/json", json.dumps(document).encode())
    return router


def add_part(router: APIRouter, path: str, kind: str, content: bytes) -> None:
    """Serve content at an address, packed for those who take it, and not again to those who have it."""
    packed = gzip.compress(content, 9, mtime=0)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def part(request: Request) -> Response:
        headers = {**CACHING, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(packed, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
        return Response(content, media_type=kind, headers=headers)

    router.add_api_route(path, part, methods=["GET", "HEAD"], response_class=Response)


def takes_gzip(accepted: str) -> bool:
    """Whether a header Accept-Encoding names gzip, and not with the weight 0."""
    for word in accepted.lower().split(","):
        name, _, weight = word.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
