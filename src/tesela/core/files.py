"""Files that are either whole or not there.

A file is written beside its final name, synced, and renamed over it; a folder likewise. Every call to the
operating system that can fail goes through ``io_call``, so that a test can make the n-th one fail (the method
is SQLite's). Errors of the system become StorageError with the bytes that were needed and those that are
free.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tesela.core.address import refuse_address
from tesela.core.errors import StorageError, UsageError
from tesela.core.failpoint import failpoint
from tesela.core.terminal import UNSHOWN

_T = TypeVar("_T")


def _allow(operation: str) -> None:
    """Let the call go ahead."""
    del operation


#: Called with the operation's name before each operating-system call; tests replace it to inject failures.
before_io: Callable[[str], None] = _allow

#: Bytes of a name that a temporary name can be made of, and of a stem that endings are put behind.
_LONGEST_NAME, _LONGEST_STEM = 200, 100
#: Characters at which readers of lines break a JSON text, and those that UTF-8 cannot hold.
_ESCAPED = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
_NOT_IN_NAMES = re.compile('[<>:"/\\\\|?*\ud800-\udfff]')

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def io_call(operation: str, call: Callable[[], _T]) -> _T:
    """Run one operating-system call, after giving tests their chance to make it fail."""
    before_io(operation)
    return call()


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` under ``path``: afterwards the file holds all of it, or what it held before.

    A device or pipe, such as /dev/stdout, is written to as it is.

    Raises:
        StorageError: no space, no permission or another failure of the file system.
    """
    temporary = _part_of(path)
    with storage_errors(path, needed=len(data)):
        if _is_device(path):
            io_call("write", lambda: path.write_bytes(data))
            return
        try:
            io_call("mkdir", lambda: path.parent.mkdir(parents=True, exist_ok=True))
            _write_synced(temporary, data)
            failpoint("file.before_rename")
            io_call("rename", lambda: temporary.replace(path))
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def file_atomic(path: Path, *, needed: int = 0) -> Iterator[Path]:
    """Give a temporary path beside ``path``.

    The file written there takes its name when the block ends without an error.

    Args:
        path: the file's final name.
        needed: bytes that will be written, for the error message when the disk is full; 0 where unknown.

    Raises:
        StorageError: no space, no permission or another failure of the file system.
        UsageError: ``path`` is a device or pipe.
    """
    if _is_device(path):
        raise UsageError(f"{path} is no file that can be replaced", hint="give another name")
    temporary = _part_of(path)
    with storage_errors(path, needed=needed):
        try:
            io_call("mkdir", lambda: path.parent.mkdir(parents=True, exist_ok=True))
            yield temporary
            _sync_file(temporary)
            failpoint("file.before_rename")
            io_call("rename", lambda: temporary.replace(path))
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder, and must not be renamed over."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _part_of(path: Path) -> Path:
    """The temporary name beside a file; shorter where the file's own name leaves no room for more."""
    refuse_address(path)
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else sha256_bytes(os.fsencode(path.name))
    return path.with_name(f".{name}.{os.getpid()}.part")


def write_json(path: Path, value: Any) -> None:
    """Put ``value`` as indented JSON under ``path``, atomically."""
    write_atomic(path, (json_text(value, indent=2) + "\n").encode())


def write_text(path: Path, text: str) -> None:
    """Put ``text`` as UTF-8 under ``path``, atomically; lone surrogates are written out as escapes."""
    write_atomic(path, text.encode("utf-8", "backslashreplace"))


def json_text(value: Any, *, ascii_only: bool = False, **options: Any) -> str:
    """JSON that every reader takes: letters as they are, line separators and lone surrogates escaped.

    Args:
        value: anything with a JSON form.
        ascii_only: escape all other letters too.
        **options: of ``json.dumps``.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def read_json(path: Path) -> Any:
    """The JSON value in ``path``."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_stem(path: Path) -> str:
    """The beginning of the names of files about ``path``: its stem, in a form that every file system takes.

    Line ends, commands to terminals, what is no UTF-8, and characters of no file name elsewhere become ``_``;
    long stems are cut, with a digest behind them. Different files may come to one stem: see ``unique_names``.
    """
    stem = _NOT_IN_NAMES.sub("_", UNSHOWN.sub("_", path.stem))
    encoded = stem.encode()
    if len(encoded) <= _LONGEST_STEM:
        return stem
    digest = sha256_bytes(os.fsencode(path.name))[:8]
    return f"{encoded[:_LONGEST_STEM].decode(errors='ignore')}-{digest}"


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, with ``-2``, ``-3`` ...

    Behind those that were there before; upper and lower case count as the same.
    """
    found: dict[str, str] = {}
    for name in names:
        candidate, number = name, 1
        while candidate.lower() in found:
            number += 1
            candidate = f"{name}-{number}"
        found[candidate.lower()] = candidate
    return list(found.values())


@contextlib.contextmanager
def folder_atomic(path: Path, *, needed: int = 0) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that takes its name when the block ends without an error.

    A folder that was there before is replaced; on an error it stays as it was and the temporary one is
    removed.

    Args:
        path: the folder's final name.
        needed: bytes that will be written, for the error message when the disk is full; 0 where unknown.

    Raises:
        StorageError: no space, no permission or another failure of the file system.
        UsageError: ``path`` is something else than a folder.
    """
    refuse_address(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is no folder, and would be lost", hint="give another name")
    with storage_errors(path, needed=needed):
        io_call("mkdir", lambda: path.parent.mkdir(parents=True, exist_ok=True))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
        io_call("mkdir", temporary.mkdir)  # not mkdtemp, whose folder only its owner can read
        try:
            yield temporary
            for child in sorted(temporary.rglob("*")):
                if child.is_file():
                    _sync_file(child)
            _sync_folder(temporary)
            failpoint("folder.before_rename")
            _put_folder(temporary, path)
            failpoint("folder.after_rename")
            _sync_folder(path.parent)
            shutil.rmtree(temporary, ignore_errors=True)  # after an exchange it holds what was there before
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _put_folder(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path``.

    A folder that has it is exchanged in the same instant where the system can.
    """
    if not path.exists():
        io_call("rename", lambda: temporary.replace(path))
    elif not io_call("rename", lambda: _exchange(temporary, path)):
        old = temporary.with_suffix(".old")
        io_call("rename", lambda: path.replace(old))
        try:
            io_call("rename", lambda: temporary.replace(path))
        except OSError:
            old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically (Linux, renameat2); False where system or file system cannot."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if (
        swap is None
        or swap(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
    ):
        return swap is not None
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


@contextlib.contextmanager
def storage_errors(path: Path, *, needed: int = 0) -> Iterator[None]:
    """Turn the file system's errors inside the block into StorageError.

    It has the free bytes and, unless they are 0, the needed ones.
    """
    try:
        yield
    except OSError as error:
        raise _storage_error(path, needed, error) from error


def _storage_error(path: Path, needed: int, error: OSError) -> StorageError:
    free = free_bytes(path)
    room = f"{needed:,} bytes needed, {free:,} free" if needed else f"{free:,} bytes free"
    if error.errno in _FULL:
        return StorageError(
            f"no space left to write {path}: {room}",
            hint="free some space or choose another folder; what was saved before is intact",
        )
    if error.errno in _DENIED:
        return StorageError(f"no permission to write {path}", hint="choose a folder you may write to")
    return StorageError(
        f"could not write {path}: {error.strerror or error} ({room})",
        hint="check the disk; what was saved before is intact",
    )


def free_bytes(path: Path) -> int:
    """Bytes free on the file system that holds ``path`` or its nearest existing parent; -1 where unknown."""
    for place in (path, *path.parents):
        if place.exists():
            with contextlib.suppress(OSError):
                return shutil.disk_usage(place).free
            break
    return -1


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = io_call("open", lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
    try:
        view = memoryview(data)
        while view:
            view = view[io_call("write", lambda view=view: os.write(descriptor, view)) :]  # type: ignore[misc]
            failpoint("file.mid_write")
        io_call("fsync", lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = io_call("open", lambda: os.open(path, os.O_RDONLY))
    try:
        io_call("fsync", lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Make a rename in the folder durable, where the system lets a folder be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = io_call("open", lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        try:
            io_call("fsync", lambda: os.fsync(descriptor))
        finally:
            os.close(descriptor)


def home() -> Path:
    """The folder for caches: ``TESELA_HOME``, else the platform's user cache folder."""
    named = os.environ.get("TESELA_HOME")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tesela")
