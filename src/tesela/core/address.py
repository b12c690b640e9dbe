"""Addresses of object storage such as ``s3://bucket/folder``, without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tesela.core.errors import UsageError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://")
#: An address whose second slash went away when it was read as a path.
_COLLAPSED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^/]")
_LOCAL = ("file://", "local://")
_USER = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY = re.compile(r"\?[^\s'\"<>]*")
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|SIGNATURE|(^|_)(KEY|SAS|PASS)(_|$)", re.IGNORECASE)
#: Letters of a value that may be a secret; shorter ones would hide ordinary words.
_LEAST_SECRET = 8


def is_address(text: str | Path) -> bool:
    """Whether a word names something on another storage than the file system's."""
    return _ADDRESS.match(str(text)) is not None and not str(text).startswith(_LOCAL)


def local_text(text: str) -> str:
    """``file:///folder`` as the path that it names; anything else as it is."""
    for beginning in _LOCAL:
        if text.startswith(beginning):
            return text.removeprefix(beginning)
    return text


def refuse_credentials(text: str) -> None:
    """Refuse an address that carries credentials, which would stand in the files and logs of every run.

    Raises:
        UsageError: it has a user's name or a query, neither of which is repeated; or it names nothing.
    """
    if not text.partition("://")[2].strip("/"):
        raise UsageError(f"{text} names nothing", hint="write it as s3://bucket/folder")
    if _USER.search(text) or "?" in text or "::" in text.partition("://")[0]:
        raise UsageError(
            f"{without_credentials(text)}: an address is SCHEME://PLACE/NAME, without user, query or chain",
            hint="credentials are read where the storage's own programs read them: its environment "
            "variables, its configuration, or ~/.config/fsspec",
        )


def without_credentials(text: str) -> str:
    """A message in which users, queries and values of secret environment variables are left out."""
    shown = _QUERY.sub("?...", _USER.sub("", text))
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _LEAST_SECRET:
            shown = shown.replace(value, "...")
    return shown


def refuse_address(path: Path) -> None:
    """Refuse to write to an address that was read as a path, which would make a folder named ``s3:``.

    Raises:
        UsageError: it says what takes addresses.
    """
    if _COLLAPSED.match(str(path)):
        raise UsageError(
            f"{without_credentials(str(path))} is an address, and results are written to folders",
            hint="give a folder and copy it up afterwards; only tesela data pack writes to addresses",
        )
