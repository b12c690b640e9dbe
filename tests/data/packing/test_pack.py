"""Data sets as shards: the same images and classes, orders that stay near one another, and damaged shards."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.pictures import make_picture, make_pictures

from tesela.cli.main import run
from tesela.core import files
from tesela.core.errors import ConfigError, DataError, ImageError, StorageError, UsageError
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.packing.pack import BOOK, INDEX, SETTINGS_OF_PACK, pack
from tesela.data.packing.shard import Packed, write_rows, write_tar
from tesela.data.random import grouped_permutation
from tesela.data.sources.shards import BUFFER
from tesela.imaging.spec import ImageSpec


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", {"cat": 40, "dog": 35, "owl": 25})


def contents(source: object) -> dict[str, list[tuple[bytes, str]]]:
    """Encoded images and labels of each split, sorted."""
    found = {}
    for split, items in source.splits.items():  # type: ignore[attr-defined]
        labels = source.labels  # type: ignore[attr-defined]
        found[split] = sorted(
            (items.raw(row) or b"", labels[items.targets[row]]) for row in range(len(items))
        )
    return found


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_hold_what_the_source_holds(kind: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    assert run(["data", "pack", str(photos), "--out", str(out), "--to", kind, "--rows", "17"]) == 0
    source, again = open_source(photos), open_source(out)
    assert contents(again) == contents(source) and again.labels == source.labels
    assert again.cut == ()
    assert len(list(out.glob(f"train-*.{kind}"))) == -(-len(source.splits["train"]) // 17)


def test_plain_pixels_are_packed_as_png(tmp_path: Path) -> None:
    source = open_source("digits")
    pack(source, tmp_path / "shards", rows=700)
    again = open_source(tmp_path / "shards")
    first = {row.tobytes() for row in (source.splits["test"].read(n) for n in range(50))}
    second = {again.splits["test"].read(n, channels=1).tobytes() for n in range(len(again.splits["test"]))}
    assert first <= second and again.channels == 1


def test_an_archive_is_what_webdataset_reads(photos: Path, tmp_path: Path) -> None:
    """Reference: tarfile, key by key."""
    source = open_source(photos)
    pack(source, tmp_path / "shards", rows=30)
    again = open_source(tmp_path / "shards").splits["train"]
    with tarfile.open(tmp_path / "shards" / "train-000001.tar") as archive:
        names = archive.getnames()
        assert [Path(name).suffix for name in names[:3]] == [".png", ".cls", ".json"]
        assert {name.partition(".")[0] for name in names} == {f"{n:09d}" for n in range(30, 60)}
        for row in (30, 59):
            image, label, told = (archive.extractfile(f"{row:09d}.{end}") for end in ("png", "cls", "json"))
            assert image is not None and label is not None and told is not None
            assert image.read() == again.raw(row) and int(label.read()) == again.targets[row]
            assert (photos / json.loads(told.read())["name"]).read_bytes() == again.raw(row)


def test_archives_without_an_index_are_read(tmp_path: Path) -> None:
    for split, count in (("train", 60), ("val", 20)):
        with tarfile.open(tmp_path / f"{split}-0000.tar", "w") as archive:
            for number in range(count):
                data = make_picture(tmp_path / "one.png", number).read_bytes()
                for name, content in ((f"{number}.png", data), (f"{number}.cls", str(number % 3).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    (tmp_path / "one.png").unlink()
    source = open_source(tmp_path)
    assert source.labels == ("0", "1", "2") and len(source.splits["val"]) == 20
    whole = (tmp_path / "train-0000.tar").read_bytes()
    for size in (len(whole) // 2, len(whole) // 2 + 700, 3000):
        (tmp_path / "train-0000.tar").write_bytes(whole[:size])
        with pytest.raises(DataError) as caught:
            open_source(tmp_path)
        assert "train-0000.tar" in caught.value.message


def test_a_pack_that_ended_early_goes_on(photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    source = open_source(photos)
    pack(source, whole, rows=11)

    def stop(done: int) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, out, rows=11, tell=stop)
    with pytest.raises(DataError) as caught:
        open_source(out)
    assert "not packed to its end" in caught.value.message
    (out / "train-000002.tar").unlink()
    before = (out / "train-000000.tar").stat().st_mtime_ns
    report = pack(source, out, rows=11)
    assert report.written < report.shards and (out / "train-000000.tar").stat().st_mtime_ns == before
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in names)


def test_what_cannot_be_packed_is_refused(photos: Path, tmp_path: Path) -> None:
    source = open_source(photos)
    pack(source, tmp_path / "out", rows=50)
    with pytest.raises(ConfigError):
        pack(source, tmp_path / "out", rows=51)
    make_picture(photos / "cat" / "new.png", 5)
    with pytest.raises(ConfigError) as caught:
        pack(open_source(photos), tmp_path / "out", rows=50)
    assert "other settings: data" in caught.value.message
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    with pytest.raises(UsageError):
        pack(source, tmp_path / "taken")
    with pytest.raises(UsageError):
        pack(source, tmp_path / "none", rows=0)


def test_unreadable_images_are_left_out_and_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    source = open_source(photos)
    with pytest.raises(DataError):
        pack(source, tmp_path / "strict", max_unreadable=0.0)
    report = pack(source, tmp_path / "out", max_unreadable=0.1)
    assert report.unreadable == 1 and sum(report.images.values()) == 99
    (bad,) = json.loads((tmp_path / "out" / "unreadable.json").read_text())
    assert bad["name"].endswith("cat/000.png")
    assert sum(len(items) for items in open_source(tmp_path / "out").splits.values()) == 99


def test_a_shard_that_is_cut_off_or_missing_is_named(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(open_source(photos), out, rows=30)
    items = open_source(out).splits["train"]
    shard = out / "train-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError):  # under a training that has it open already
        items.raw(59)
    with pytest.raises(DataError) as caught:
        open_source(out)
    assert "train-000001.tar is cut off" in caught.value.message
    shard.unlink()
    with pytest.raises(DataError) as caught:
        open_source(out)
    assert "train-000001.tar is missing" in caught.value.message
    shard.write_bytes(data)
    (out / BOOK / "train-000000.idx").write_bytes(b"short")
    with pytest.raises(DataError):
        open_source(out)
    assert (out / INDEX).exists() and (out / SETTINGS_OF_PACK).exists()


def test_the_order_mixes_a_few_shards_at_a_time() -> None:
    groups = np.repeat(np.arange(40), 25)
    orders = [grouped_permutation(3, epoch, groups, buffer=BUFFER) for epoch in range(2)]
    for order in orders:
        assert sorted(order) == list(range(1000))
        for begin in range(0, 1000, BUFFER * 25):
            window = groups[order[begin : begin + BUFFER * 25]]
            assert len(set(window)) == BUFFER and len(set(window[:50])) > BUFFER // 2
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], grouped_permutation(3, 0, groups, buffer=BUFFER))


def test_a_loader_gives_any_batch_alone_and_in_workers(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(open_source(photos), out, rows=4)
    items = open_source(out).splits["train"]
    spec = ImageSpec(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)

    def loader(workers: int) -> Loader:
        return Loader(items, spec, batch_size=8, shuffle=True, seed=1, cache="none", workers=workers)

    plain, processes = loader(0), loader(2)
    whole = list(plain.epoch(1))
    for number, batch in enumerate(processes.epoch(1, start=3)):
        assert batch.indices.tolist() == whole[3 + number].indices.tolist()
        assert bool((batch.images == whole[3 + number].images).all())
    processes.close()
    first = np.concatenate([batch.indices.numpy() for batch in whole])[: BUFFER * 4]
    assert len({int(row) // 4 for row in first}) == BUFFER
    again = pickle.loads(pickle.dumps(items))
    assert again.raw(3) == items.raw(3)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_full_disk_is_told_how_much_a_shard_needs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(operation: str) -> None:
        if operation == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "before_io", full)
    images = [Packed(name="a", data=bytes(1000), target=0), Packed(name="b", data=bytes(234), target=0)]
    with pytest.raises(StorageError, match="1,234 bytes needed"):
        if kind == "tar":
            write_tar(tmp_path / "x.tar", images, first=0)
        else:
            write_rows(tmp_path / "x.parquet", images, ["a"])
    assert not list(tmp_path.iterdir())
