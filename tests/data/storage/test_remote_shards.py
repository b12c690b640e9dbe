"""Shards in object storage: the same as on a disk, and named faults where the storage fails half-way."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.storage.failing import FailingFileSystem, failing_storage
from tests.pictures import make_pictures

from tesela.cli.main import run
from tesela.core.errors import ConfigError, DataError, StorageError, UsageError
from tesela.core.files import file_atomic, folder_atomic
from tesela.data.config import DataConfig
from tesela.data.digest import data_digest
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.packing.pack import INDEX, pack
from tesela.data.source import Source
from tesela.data.storage.place import put
from tesela.data.storage.remote import TRIES, RemotePath
from tesela.imaging.spec import ImageSpec
from tesela.runs.folder import Run

SPEC = ImageSpec(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingFileSystem]]:
    with failing_storage(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("photos")
    return open_source(make_pictures(root, {"cat": 24, "dog": 20, "owl": 16}))


def stored(storage: type[FailingFileSystem]) -> dict[str, bytes]:
    """Content by name."""
    return {name: file.getvalue() for name, file in storage.store.items()}


def batches(source: Source, **options: Any) -> list[torch.Tensor]:
    loader = Loader(source.splits["train"], SPEC, batch_size=8, shuffle=True, seed=1, cache="none", **options)
    return [batch.images for batch in loader.epoch(1)]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_pack_at_an_address_has_the_bytes_of_one_on_disk(
    kind: Any, photos: Source, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    pack(photos, tmp_path / "shards", rows=9, kind=kind)
    pack(photos, RemotePath("failing://bucket/shards"), rows=9, kind=kind)
    local = {
        "/bucket/shards/" + file.relative_to(tmp_path / "shards").as_posix(): file.read_bytes()
        for file in (tmp_path / "shards").rglob("*")
        if file.is_file()
    }
    assert stored(storage) == local
    near, far = open_source(tmp_path / "shards"), open_source("failing://bucket/shards")
    assert (far.name, far.labels, far.channels, far.notes) == (near.name, near.labels, 3, near.notes)
    assert data_digest(far) == data_digest(near)
    for split, items in near.splits.items():
        other = far.splits[split]
        assert [other.name(row) for row in range(len(other))] == [
            items.name(row) for row in range(len(items))
        ]
        assert [other.raw(row) for row in range(len(other))] == [items.raw(row) for row in range(len(items))]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_disk_also_from_the_middle(
    workers: int, photos: Source, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    pack(photos, tmp_path / "shards", rows=4)
    pack(photos, RemotePath("failing://bucket/shards"), rows=4)
    wanted = batches(open_source(tmp_path / "shards"))
    far = open_source("failing://bucket/shards").splits["train"]
    loader = Loader(far, SPEC, batch_size=8, shuffle=True, seed=1, cache="none", workers=workers)
    found = [batch.images for batch in loader.epoch(1, start=2)]
    loader.close()
    assert len(found) == len(wanted) - 2
    assert all(torch.equal(one, other) for one, other in zip(found, wanted[2:], strict=True))


def test_archives_of_webdataset_are_read_at_an_address(
    photos: Source, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    pack(photos, tmp_path / "shards", rows=20)
    for file in (tmp_path / "shards").glob("*.tar"):
        put(RemotePath(f"failing://bucket/plain/{file.name}"), file.read_bytes())
    near = open_source(tmp_path / "shards").splits["train"]
    far = open_source("failing://bucket/plain").splits["train"]
    assert [far.raw(row) for row in range(len(far))] == [near.raw(row) for row in range(len(near))]
    assert far.targets.tolist() == near.targets.tolist()
    one = open_source("failing://bucket/plain/train-000001.tar")
    assert len(one.splits["train"]) + len(one.splits["val"]) + len(one.splits["test"]) == 20


def test_an_archive_that_is_cut_off_anywhere_is_named(photos: Source, tmp_path: Path) -> None:
    """Also where the cut is between two files, behind which tarfile sees nothing wrong."""
    pack(photos, tmp_path / "shards", rows=60)
    whole = (tmp_path / "shards" / "train-000000.tar").read_bytes()
    place = tmp_path / "plain" / "train-000000.tar"
    place.parent.mkdir()
    index = open_source(tmp_path / "shards").splits["train"].index  # type: ignore[attr-defined]
    for row in range(1, 8):
        place.write_bytes(whole[: int(index[row, 1]) - 512])
        with pytest.raises(DataError) as caught:
            open_source(place.parent)
        assert "train-000000.tar is damaged or cut off" in caught.value.message
    place.write_bytes(whole)
    assert len(open_source(place.parent).splits["train"])


def test_a_few_failures_change_nothing(
    photos: Source, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    """Every third call fails, with the errors of other libraries too, and every fifth read is cut off."""
    pack(photos, tmp_path / "shards", rows=9)
    count: Counter[str] = Counter()

    def before(call: str, path: str) -> None:
        count[call] += 1
        if count[call] % 3 == 0:
            raise (ConnectionResetError("reset"), RuntimeError("502"), TimeoutError())[count[call] // 3 % 3]

    def after(call: str, path: str, data: bytes) -> bytes:
        return data[: len(data) // 2] if count[call] % 5 == 0 else data

    storage.before, storage.after = staticmethod(before), staticmethod(after)
    pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    found = batches(open_source("failing://bucket/shards"))
    wanted = batches(open_source(tmp_path / "shards"))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert count["read"] > 60


def test_a_pack_goes_on_where_the_storage_failed(
    photos: Source, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    pack(photos, tmp_path / "shards", rows=9)
    written: list[str] = []

    def full(call: str, path: str) -> None:
        if call == "write":
            written.append(path)
            if len(written) > 6:
                raise OSError(errno.ENOSPC, "no space left")

    storage.before = staticmethod(full)
    with pytest.raises(StorageError) as caught:
        pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    assert len(written) == 6 + TRIES and f"tried {TRIES} times" in caught.value.message
    assert caught.value.message.startswith("failing://bucket/shards/")
    with pytest.raises(DataError) as unfinished:
        open_source("failing://bucket/shards")
    assert "not packed to its end" in unfinished.value.message
    storage.before = staticmethod(lambda call, path: None)
    with pytest.raises(ConfigError):
        pack(photos, RemotePath("failing://bucket/shards"), rows=10)
    report = pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    assert 0 < report.written < report.shards
    for name, content in stored(storage).items():
        assert (tmp_path / name.removeprefix("/bucket/")).read_bytes() == content
    with pytest.raises(UsageError):
        pack(photos, RemotePath("failing://bucket"), rows=9)


def test_a_shard_that_is_cut_off_or_missing_is_named(
    photos: Source, storage: type[FailingFileSystem]
) -> None:
    pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    items = open_source("failing://bucket/shards").splits["train"]
    whole = storage.store["/bucket/shards/train-000001.tar"].getvalue()
    storage.pipe_file(storage(), "/bucket/shards/train-000001.tar", whole[:700])
    with pytest.raises(StorageError) as read:  # under a training that has read its index already
        items.raw(16)
    assert "train-000001.tar is cut off: 700 bytes are there" in read.value.message
    with pytest.raises(DataError) as caught:
        open_source("failing://bucket/shards")
    assert "train-000001.tar is cut off" in caught.value.message
    storage().rm("/bucket/shards/train-000001.tar")
    with pytest.raises(DataError) as caught:
        open_source("failing://bucket/shards")
    assert "train-000001.tar is missing" in caught.value.message
    with pytest.raises(StorageError) as gone:
        items.raw(16)
    assert "train-000001.tar is missing" in gone.value.message


def test_a_storage_without_ranges_is_refused(photos: Source, storage: type[FailingFileSystem]) -> None:
    """Some servers answer a request for a part with the whole file."""
    pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    items = open_source("failing://bucket/shards").splits["train"]

    def whole(call: str, path: str, data: bytes) -> bytes:
        return bytes(storage.store[path].getvalue()) if call == "read" else data

    storage.after = staticmethod(whole)
    with pytest.raises(StorageError) as caught:
        items.raw(3)
    assert "cannot be read in parts" in caught.value.message


def test_a_failing_storage_leaves_no_image_out(photos: Source, storage: type[FailingFileSystem]) -> None:
    """An image that does not come is no unreadable image, of which a share may be left out."""
    pack(photos, RemotePath("failing://bucket/shards"), rows=9)
    storage().rm("/bucket/shards/" + INDEX)
    storage().rm("/bucket/shards/_pack.json")

    def broken(call: str, path: str, data: bytes) -> bytes:
        if call == "read" and len(data) < 1000:
            raise ConnectionResetError("reset")
        return data

    source = open_source("failing://bucket/shards")  # without an index no image is verified
    storage.after = staticmethod(broken)
    with pytest.raises(StorageError):
        Loader(source.splits["train"], SPEC, batch_size=8, cache="none", max_unreadable=0.5)


def test_credentials_are_neither_taken_nor_shown(
    monkeypatch: pytest.MonkeyPatch, storage: type[FailingFileSystem], capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("s3://me:hunter22@bucket/x", "https://host/x.tar?X-Signature=hunter22"):
        for words in (
            ["train", address],
            ["data", "check", address],
            ["data", "pack", "digits", "--out", address],
        ):
            assert run(words) == 2
            said = capsys.readouterr().err
            assert "hunter22" not in said and "without user, query or chain" in said
        with pytest.raises(UsageError):
            DataConfig(source=address)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22hunter22")

    def refuse(call: str, path: str) -> None:
        raise PermissionError("signed with hunter22hunter22 for https://me:hunter22@host/x?sig=hunter22")

    storage.before = staticmethod(refuse)
    with pytest.raises(StorageError) as caught:
        open_source("failing://bucket/shards")
    assert "PermissionError: signed with ... for https://host/x?..." in caught.value.message


def test_addresses_that_cannot_be_used_are_refused_with_what_to_do(
    storage: type[FailingFileSystem],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(["data", "check", "failing://bucket/none"]) == 2
    assert "tesela data pack" in capsys.readouterr().err
    assert run(["data", "check", "nonsense://bucket/none"]) == 2
    assert "nonsense:// is no storage that is known" in capsys.readouterr().err
    with pytest.raises(UsageError):
        RemotePath("failing://")
    monkeypatch.chdir(tmp_path)
    out = Path("failing://bucket/run")
    for write in (Run(out).locked, lambda: file_atomic(out), lambda: folder_atomic(out)):
        with pytest.raises(UsageError) as caught, write():
            pass
        assert "is an address" in caught.value.message
    assert not list(tmp_path.iterdir())


def test_a_file_address_is_a_path(photos: Source, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    source = str(make_pictures(tmp_path / "few", {"a": 6, "b": 6}))
    assert run(["data", "pack", f"file://{source}", "--out", f"file://{out}"]) == 0
    assert json.loads((out / INDEX).read_text())["labels"] == ["a", "b"]
    assert DataConfig(source=f"file://{out}").source == str(out)
    assert open_source(f"file://{out}").labels == ("a", "b")
