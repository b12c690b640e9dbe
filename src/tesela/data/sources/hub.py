"""Data sets of ``hub:NAME[@REVISION]``, through huggingface_hub and its cache.

What comes is opened as the folder that it is: Parquet files, a manifest, class folders, images and masks.
``HF_HUB_OFFLINE`` and ``HF_HOME`` do what they do elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tesela.core.errors import DataError, MissingExtraError, TeselaError, UsageError
from tesela.core.registry import entries
from tesela.data.source import Source
from tesela.imaging.suffixes import IMAGE_SUFFIXES

DATA_PREFIX = "hub:"
#: What is fetched: data, and what describes it; no archives and no programs.
TABLES = ["*.parquet", "*.csv", "*.jsonl", "*.json", "*.txt"]


def find_hub(text: str | Path) -> Source | None:
    """The data set of that name; None for anything that is no ``hub:`` address.

    Raises:
        UsageError: it is no such name.
        MissingExtraError: huggingface_hub is not installed.
        DataError: there is no such data set, or it is not here and cannot be fetched, or nothing in it is
            known.
    """
    address = str(text)
    if not address.startswith(DATA_PREFIX):
        return None
    name, _, revision = address.removeprefix(DATA_PREFIX).partition("@")
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name):
        raise UsageError(
            f"{name!r} is no name of a data set", hint="write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"
        )
    folder = _snapshot(name, revision or None)
    for entry in sorted(entries("dataset"), key=lambda entry: entry.name == "folder"):
        source: Source | None = entry.load()(folder) if entry.name != "hub" else None
        if source is not None:
            return replace(source, name=name)
    raise DataError(f"{name} holds no data that is known", hint="it needs Parquet files or folders of images")


def _snapshot(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("downloading from the hub", "hub") from error
    patterns = [*TABLES, *(f"*{suffix}" for suffix in sorted(IMAGE_SUFFIXES))]
    try:
        return Path(snapshot_download(name, revision=revision, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:
        raise _named_error(error, name, revision) from error


def _named_error(error: Exception, name: str, revision: str | None) -> TeselaError:
    """The library's errors as ours."""
    kind = type(error).__name__
    at = f"{name} at revision {revision}" if revision else name
    if kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
        return DataError(
            f"{at} is not in the cache of this machine and the hub cannot be reached",
            hint="connect and unset HF_HUB_OFFLINE, or give a folder that holds the data",
        )
    if kind == "RevisionNotFoundError":
        return DataError(f"{name} has no revision {revision}", hint="leave @REVISION away, or give another")
    if kind in ("RepositoryNotFoundError", "GatedRepoError"):
        return DataError(
            f"there is no data set {name}, or it is private or asks for an agreement",
            hint="check the name; log in, and agree on its page",
        )
    return DataError(
        f"{at} could not be downloaded: {kind}: {error}", hint="check the connection and try again"
    )
