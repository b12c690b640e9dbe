"""Downloads of ``hub:NAME[@REVISION]`` through huggingface_hub and its cache.

``HF_HUB_OFFLINE`` and ``HF_HOME`` do what they do elsewhere. What came is pinned by the commit it belongs to;
where the cache names a file by its SHA-256, the file's content is compared with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tesela.core.errors import MissingExtraError, TeselaError, UsageError, WeightsError
from tesela.core.files import sha256_file

HUB_PREFIX = "hub:"
_TEXTS = ["config.json", "preprocessor_config.json", "README.md"]
_SAFE = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
_PICKLED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A repository on this machine.

    Attributes:
        folder: with its files.
        name: of the repository.
        revision: the commit.
    """

    folder: Path
    name: str
    revision: str


def download(source: str) -> Download:
    """The files of ``hub:NAME[@REVISION]``: configuration, and weights in the safest form the repository has.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UsageError: it is no such name.
        WeightsError: there is no such repository or revision, it holds no weights, or it is not here and
            cannot be fetched.
    """
    name, _, revision = source.removeprefix(HUB_PREFIX).partition("@")
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name):
        raise UsageError(
            f"{name!r} is no name of a model repository",
            hint="write hub:OWNER/NAME or hub:OWNER/NAME@REVISION",
        )
    folder = _snapshot(name, revision or None, _TEXTS + _SAFE)
    if not any((folder / file).is_file() for file in _SAFE[:2]):
        folder = _snapshot(name, revision or None, _TEXTS + _PICKLED)
    if not any((folder / file).is_file() for file in (*_SAFE[:2], *_PICKLED[:2])):
        raise WeightsError(
            f"{name} holds no weights that are known", hint="it needs model.safetensors or pytorch_model.bin"
        )
    _check_blobs(folder)
    return Download(folder=folder, name=name, revision=folder.name)


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("downloading from the hub", "hub") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:
        # another program may have left out files that we can do without
        part = Path(getattr(error, "snapshot_path", "") or "")
        if (
            any((part / file).is_file() for file in (*_SAFE[:2], *_PICKLED[:2]))
            and (part / _TEXTS[0]).is_file()
        ):
            return part
        raise _as_tesela_error(error, name, revision) from error


def _as_tesela_error(error: Exception, name: str, revision: str | None) -> TeselaError:
    """The library's many errors as ours."""
    from huggingface_hub import errors

    at = f"{name} at revision {revision}" if revision else name
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{name} asks for an agreement before it can be downloaded", hint="agree on its page and log in"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(
            f"{name} has no revision {revision}", hint="leave @REVISION away, or give a branch, tag or commit"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"there is no model repository {name}, or it is private",
            hint="check the name; log in for a private one",
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return WeightsError(
            f"{at} is not in the cache of this machine and the hub cannot be reached",
            hint="connect and unset HF_HUB_OFFLINE, or give a folder that holds the model",
        )
    if isinstance(error, errors.HFValidationError):
        return UsageError(
            f"{name!r} is no name of a model repository",
            hint="write hub:OWNER/NAME or hub:OWNER/NAME@REVISION",
        )
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return WeightsError(
            f"{at} could not be stored: {error}", hint="check the disk, or set HF_HOME to another folder"
        )
    return WeightsError(
        f"{at} could not be downloaded: {type(error).__name__}: {error}",
        hint="check the connection and try again",
    )


def _check_blobs(folder: Path) -> None:
    """Compare the weights with the SHA-256 that the cache names them by."""
    for path in sorted(folder.iterdir()):
        stored = path.resolve().name
        if (
            path.suffix in (".safetensors", ".bin")
            and re.fullmatch(r"[0-9a-f]{64}", stored)
            and sha256_file(path) != stored
        ):
            raise WeightsError(
                f"{path.name} in the cache is damaged: its SHA-256 is not {stored}",
                hint="delete it and download it again",
            )
