"""Files that are whole or not there.

Every operating-system call is made to fail once, as SQLite's tests do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tesela.core import files
from tesela.core.errors import StorageError, UsageError

FAILURES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)


class FailAt:
    """Lets n - 1 calls through and fails the n-th."""

    def __init__(self, number: int, code: int) -> None:
        self.left, self.code = number, code

    def __call__(self, operation: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.code, os.strerror(self.code), operation)


def every_failure(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailAt]:
    """One injector per (call, error) until a number is reached that no call has."""
    for number in itertools.count(1):
        for code in FAILURES:
            fault = FailAt(number, code)
            monkeypatch.setattr(files, "before_io", fault)
            yield fault
            if fault.left > 0:
                return


def test_a_file_is_the_old_one_or_the_new_one_whichever_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    files.write_atomic(path, b"old")
    failed = 0
    for fault in every_failure(monkeypatch):
        try:
            files.write_atomic(path, b"new content")
        except StorageError as error:
            failed += 1
            assert fault.left <= 0
            assert "state.json" in error.message
            assert error.hint
        assert path.read_bytes() in (b"old", b"new content")
        assert [item.name for item in tmp_path.iterdir()] == ["state.json"], "no half file stays"
        monkeypatch.setattr(files, "before_io", lambda operation: None)
        files.write_atomic(path, b"old")
    assert failed >= 6 * len(FAILURES)


def test_a_folder_is_the_old_one_or_the_new_one_whichever_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"

    def write(text: str) -> None:
        with files.folder_atomic(path) as folder:
            (folder / "a").write_text(text, encoding="utf-8")
            (folder / "b").write_text(text, encoding="utf-8")

    write("old")
    for _ in every_failure(monkeypatch):
        with contextlib.suppress(StorageError):
            write("new")
        assert {(path / name).read_text(encoding="utf-8") for name in "ab"} in ({"old"}, {"new"})
        monkeypatch.setattr(files, "before_io", lambda operation: None)
        write("old")
        assert [item.name for item in tmp_path.iterdir() if item.name.endswith(".part")] == []


def test_without_an_atomic_exchange_a_failed_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    test_a_folder_is_the_old_one_or_the_new_one_whichever_call_fails(tmp_path, monkeypatch)


def test_a_full_disk_is_reported_with_needed_and_free_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "before_io", FailAt(3, errno.ENOSPC))
    with pytest.raises(StorageError, match=r"no space left to write .*: 1,234 bytes needed, [\d,]+ free"):
        files.write_atomic(tmp_path / "x", bytes(1234))


def test_a_full_disk_names_no_need_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "before_io", FailAt(2, errno.ENOSPC))
    with (
        pytest.raises(StorageError, match=r"no space left to write .*: [\d,]+ bytes free\n"),
        files.file_atomic(tmp_path / "x") as place,
    ):
        place.write_bytes(b"x")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write fewer bytes than asked for; the rest follows."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:7])))
    files.write_atomic(tmp_path / "x", bytes(range(100)))
    assert (tmp_path / "x").read_bytes() == bytes(range(100))


def test_digest_is_sha256(tmp_path: Path) -> None:
    """Reference: hashlib over the whole content."""
    path = tmp_path / "x"
    path.write_bytes(b"tesela" * 1000)
    assert (
        files.sha256_file(path)
        == files.sha256_bytes(path.read_bytes())
        == hashlib.sha256(b"tesela" * 1000).hexdigest()
    )


def test_home_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TESELA_HOME", str(tmp_path))
    assert files.home() == tmp_path
    monkeypatch.delenv("TESELA_HOME")
    assert files.home().name == "tesela"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """A folder takes no file's name, a pipe stays one and gets the bytes; a name of a device is refused."""
    words = tmp_path / "words.txt"
    words.write_text("kept")
    with pytest.raises(UsageError, match="is no folder"), files.folder_atomic(words) as folder:
        (folder / "a").write_text("lost")
    assert words.read_text() == "kept" and list(tmp_path.iterdir()) == [words]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_atomic(pipe, b"through")
    assert os.read(reader, 99) == b"through" and pipe.is_fifo()
    os.close(reader)
    with pytest.raises(UsageError, match="can be replaced"), files.file_atomic(pipe):
        pass
    files.write_text(Path(os.devnull), "nothing")
    assert Path(os.devnull).is_char_device() and pipe.is_fifo()
