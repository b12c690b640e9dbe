"""Files in object storage through fsspec, with retries.

A process gets file systems of its own, so that loader workers may read what their parent has read. Odd: a
storage that gives another number of bytes than was asked for counts as failing, whatever it says.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tesela.core.address import refuse_credentials, without_credentials
from tesela.core.errors import MissingExtraError, StorageError, UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_T = TypeVar("_T")
#: How often a call is tried, and seconds before the second time; each further pause is twice as long.
TRIES, PAUSE = 5, 0.2
#: Bytes that are read at once where a file is read from front to back.
FETCHED = 256 << 10
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FINAL = (PermissionError, TypeError, AttributeError, ImportError)
_IN_EXTRA = ("s3", "s3a", "gs", "gcs", "http", "https")
_LONGEST = 200
_HINT = "look at the connection and the storage; what was done is kept, and the command can take it up"


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder at an address, with those parts of pathlib's interface that data sets need."""

    url: str

    def __post_init__(self) -> None:
        refuse_credentials(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The ending of the last part."""
        return self._pure.suffix

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.url.rpartition("/")[0])

    def relative_to(self, root: RemotePath) -> PurePosixPath:
        """The part of the name below a folder."""
        return self._pure.relative_to(root._pure)

    def size(self) -> int | None:
        """Bytes of a file; None where there is no file.

        Raises:
            StorageError: the storage does not answer.
        """

        def call(system: Any, path: str) -> int | None:
            system.invalidate_cache()
            told = system.info(path)
            return None if told.get("type") == "directory" else told["size"]

        try:
            return self._tried("found", call)
        except FileNotFoundError:
            return None

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of a file.

        Raises:
            StorageError: it is missing or cut off, or the storage fails.
        """
        if not size:
            return b""

        def call(system: Any, path: str) -> bytes:
            data: bytes = system.cat_file(path, start=offset, end=offset + size)
            if len(data) != size:
                raise _OtherLengthError(f"{len(data):,} of {size:,} bytes came")
            return data

        try:
            return self._tried("read", call)
        except FileNotFoundError:
            raise StorageError(f"{self.url} is missing", hint="copy it there again") from None
        except _OtherLengthError as error:
            there = self.size()
            if there is not None and there < offset + size:
                raise StorageError(
                    f"{self.url} is cut off: {there:,} bytes are there, and it has to have {offset + size:,}",
                    hint="copy it there again",
                ) from None
            raise StorageError(
                f"{self.url} cannot be read in parts: {error}",
                hint="take a server that answers requests of ranges, or copy the files to a folder",
            ) from None

    def content(self) -> bytes | None:
        """All bytes of a file; None where there is no file.

        Raises:
            StorageError: the storage fails.
        """
        try:
            data: bytes = self._tried("read", lambda system, path: system.cat_file(path))
        except FileNotFoundError:
            return None
        there = self.size()
        if there is not None and there != len(data):
            return self.read(0, there)
        return data

    def write(self, data: bytes) -> None:
        """Put a file there, and see that all of it arrived.

        Raises:
            StorageError: the storage refuses or fails.
        """

        def call(system: Any, path: str) -> None:
            try:
                system.pipe_file(path, data)
            except FileNotFoundError:  # a storage with folders
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, data)
            system.invalidate_cache()
            if system.info(path)["size"] != len(data):
                raise OSError(f"not all of {len(data):,} bytes arrived")

        try:
            self._tried("written", call)
        except FileNotFoundError as error:
            raise StorageError(f"{self.url} cannot be written: {_reason(error)}", hint=_HINT) from None

    def below(self) -> list[RemotePath]:
        """All files below a folder, sorted by name; none where there is no folder.

        Raises:
            StorageError: the storage fails.
        """

        def call(system: Any, path: str) -> list[str]:
            system.invalidate_cache()
            root = path.rstrip("/") + "/"
            return sorted(
                place.removeprefix(root)
                for place in system.find(path)
                if place.startswith(root) and place != root
            )

        try:
            return [self / name for name in self._tried("listed", call)]
        except FileNotFoundError:
            return []

    def open(self) -> IO[bytes]:
        """The file as a stream that can be read anywhere.

        Raises:
            StorageError: it is missing, or the storage fails; also while it is read.
        """
        size = self.size()
        if size is None:
            raise StorageError(f"{self.url} is missing", hint="copy it there again")
        return io.BufferedReader(_Stream(self, size), FETCHED)

    def _tried(self, what: str, call: Callable[[Any, str], _T]) -> _T:
        """Answer of the storage, asked a few times.

        Raises:
            FileNotFoundError: there is no such file.
            _OtherLengthError: it gives too few bytes, or too many.
        """
        system, path = _system(self.url)
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return call(system, path)
            except _ABSENT as error:
                raise FileNotFoundError(str(error)) from None
            except _FINAL as error:
                raise StorageError(f"{self.url} cannot be {what}: {_reason(error)}", hint=_HINT) from None
            except _OtherLengthError:
                if attempt == TRIES - 1:
                    raise
            except Exception as error:  # each storage has kinds of its own
                last = _reason(error)
        raise StorageError(f"{self.url} cannot be {what}, tried {TRIES} times: {last}", hint=_HINT)


class _OtherLengthError(Exception):
    """Another number of bytes came than was asked for."""


class _Stream(io.RawIOBase):
    """A file at an address, read by ranges."""

    def __init__(self, place: RemotePath, size: int) -> None:
        self._place, self._size, self._at = place, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        view[:count] = self._place.read(self._at, count)
        self._at += count
        return count


def _system(url: str) -> tuple[Any, str]:
    """The file system of an address in this process and thread, and the path in it.

    Raises:
        UsageError: there is none of that name, or its package is not installed.
        StorageError: it cannot be opened as it is configured.
    """
    scheme = url.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("reading and writing addresses", "storage") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        if scheme in _IN_EXTRA:
            raise MissingExtraError(f"{scheme}://", "storage") from None
        raise UsageError(f"{scheme}:// needs a package that is not installed", hint=str(error)) from None
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise StorageError(f"{url} cannot be opened: {_reason(error)}", hint=_HINT) from None
        raise UsageError(
            f"{scheme}:// is no storage that is known", hint="give s3://, gs://, az://, https:// or a path"
        ) from None
    except Exception as error:
        raise StorageError(f"{url} cannot be opened: {_reason(error)}", hint=_HINT) from None
    return system, str(path)


def _reason(error: BaseException) -> str:
    """What a storage said, in one short line without credentials."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return without_credentials(text)[:_LONGEST]
