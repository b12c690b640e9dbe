"""A storage for tests that fails where a test says so: fsspec's memory under ``failing://``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from tesela.data.storage import remote


class FailingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Memory that asks ``before`` about each call and ``after`` about what is read or written."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    before: ClassVar[Callable[[str, str], None]] = staticmethod(lambda call, path: None)
    after: ClassVar[Callable[[str, str, bytes], bytes]] = staticmethod(lambda call, path, data: data)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("failing://", "memory://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        type(self).before("read", path)
        data: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        return type(self).after("read", path, data)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        type(self).before("write", path)
        super().pipe_file(path, type(self).after("write", path, value), mode=mode, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        type(self).before("info", path)
        return dict(super().info(path, **kwargs))


@contextmanager
def failing_storage(pytest_patch: Any) -> Iterator[type[FailingFileSystem]]:
    """The storage, empty and without faults, and retries without pauses."""
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    pytest_patch.setattr(remote, "PAUSE", 0.0)
    kept = FailingFileSystem.before, FailingFileSystem.after
    try:
        yield FailingFileSystem
    finally:
        FailingFileSystem.before, FailingFileSystem.after = staticmethod(kept[0]), staticmethod(kept[1])
        FailingFileSystem.store.clear()
        FailingFileSystem.pseudo_dirs[:] = [""]
