"""Sources on real files, against their bytes read independently, and the refusals."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tesela.core.errors import DataError, TeselaError, UsageError
from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.data.targets import label_counts


def make_folder(root: Path, layout: dict[str, int], *, size: tuple[int, int] = (8, 6)) -> Path:
    """PNG files of random pixels: {class folder: how many}."""
    random = np.random.default_rng(len(layout))
    for place, count in layout.items():
        (root / place).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(
                root / place / f"{number:03d}.png"
            )
    return root


def membership(source: Source) -> dict[str, set[str]]:
    return {split: {items.name(i) for i in range(len(items))} for split, items in source.splits.items()}


def test_mnist_counts_and_first_label(shared: Path) -> None:
    """The IDX header and label bytes, read with struct."""
    folder = shared / "data/mnist"
    source = open_source(folder)
    raw = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert struct.unpack(">II", raw[:8]) == (0x801, 10000)
    test = source.splits["test"]
    assert test.targets[:50].tolist() == list(raw[8:58])
    assert test.read(7).tobytes() == images[16 + 7 * 784 : 16 + 8 * 784]
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 54000,
        "val": 6000,
        "test": 10000,
    }
    assert source.labels == tuple("0123456789")
    assert source.channels == 1


def test_cifar10_names_and_first_image(shared: Path) -> None:
    """The Parquet row read with PyArrow, the picture with Pillow."""
    import io

    folder = shared / "data/cifar10"
    source = open_source(folder)
    table = pq.read_table(folder / "test-00000-of-00001.parquet")
    row = table.slice(9876, 1).to_pylist()[0]
    test = source.splits["test"]
    assert source.labels[3] == "cat"
    assert test.targets[9876] == row["label"]
    expected = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"))
    assert np.abs(test.read(9876).astype(int) - expected).max() <= 1
    assert label_counts(source)["val"] == [500] * 10
    again = pickle.loads(pickle.dumps(test))
    assert again.name(9876) == "test-00000-of-00001.parquet#9876"


def test_digits_are_scikit_learns_scaled() -> None:
    from sklearn.datasets import load_digits

    source = open_source("digits")
    digits = load_digits()
    items = source.splits["test"]
    row = int(items.name(5).split("#")[1])
    assert np.abs(items.read(5)[..., 0] / 255 * 16 - digits.images[row]).max() <= 16 / 255 / 2 + 1e-9
    assert items.targets[5] == digits.target[row]
    assert sum(len(items) for items in source.splits.values()) == 1797


def test_folder_without_splits(tmp_path: Path) -> None:
    make_folder(tmp_path, {"dog": 20, "cat/inner": 30, "cat/other": 10})
    (tmp_path / "notes.txt").write_text("x")
    source = open_source(tmp_path)
    assert source.labels == ("cat", "dog")
    assert {split: len(items) for split, items in source.splits.items()} == {"train": 48, "val": 6, "test": 6}
    assert label_counts(source)["test"] == [4, 2]
    assert source.ignored == ("notes.txt",)
    names = membership(source)
    assert not names["train"] & names["test"]
    assert names["train"] | names["val"] | names["test"] == {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")
    }


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_folder_with_splits(tmp_path: Path, word: str) -> None:
    make_folder(tmp_path, {"train/a": 9, "train/b": 9, f"{word}/a": 2, f"{word}/b": 1, "test/b": 3})
    source = open_source(tmp_path)
    assert source.cut == ()
    assert label_counts(source) == {"train": [9, 9], "val": [2, 1], "test": [0, 3]}


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    assert open_source(make_folder(tmp_path, {"test": 5, "train": 5, "other": 5})).labels == (
        "other",
        "test",
        "train",
    )


def test_split_depends_on_names_only(tmp_path: Path) -> None:
    """A file more or a file less moves no other file within a class by more than the quota's change.

    Order on disk never counts.
    """
    first = make_folder(tmp_path / "one", {"a": 40, "b": 40})
    names = sorted(path.name for path in (first / "a").iterdir())
    second = tmp_path / "two"
    for label in "ba":
        (second / label).mkdir(parents=True)
        for name in reversed(names):
            (second / label / name).write_bytes((first / label / name).read_bytes())
    assert membership(open_source(first)) == membership(open_source(second))
    other = membership(open_source(first, config=DataConfig(split_seed=1)))
    assert other != membership(open_source(first))
    less = membership(open_source(first, config=DataConfig(val_fraction=0.2)))
    assert less["test"] == membership(open_source(first))["test"]


def test_subset_is_balanced_and_nested() -> None:
    sizes = {size: open_source("digits", config=DataConfig(subset=size)) for size in (20, 50)}
    assert label_counts(sizes[20])["train"] == [2] * 10
    names = {size: membership(source)["train"] for size, source in sizes.items()}
    assert names[20] < names[50]


def test_manifest_of_a_folder_gives_the_same_splits(tmp_path: Path) -> None:
    from tesela.data.sources.tables.writing import write_manifest

    source = open_source(make_folder(tmp_path / "data", {"a": 12, "b": 15}))
    write_manifest(source, tmp_path / "out" / "split.csv", root=tmp_path / "data")
    again = open_source(tmp_path / "out" / "split.csv")
    for split, items in source.splits.items():
        other = again.splits[split]
        assert other.targets.tolist() == items.targets.tolist()
        assert all(np.array_equal(other.read(i), items.read(i)) for i in range(len(items)))


def test_manifest_of_rows_gives_the_same_images(tmp_path: Path) -> None:
    from tesela.data.sources.tables.writing import write_manifest

    source = open_source("digits")
    write_manifest(source, tmp_path / "digits.csv", root=None)
    again = open_source(tmp_path / "digits.csv")
    assert again.labels == source.labels
    assert again.channels == 1
    assert np.array_equal(again.splits["val"].read(11), source.splits["val"].read(11))


def test_jsonl_manifest(tmp_path: Path) -> None:
    make_folder(tmp_path, {"x": 3, "y": 3})
    rows = [
        {"path": f"{name}/{number:03d}.png", "label": 10 if name == "x" else 9}
        for name in "xy"
        for number in range(3)
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert open_source(tmp_path / "all.jsonl").labels == ("9", "10")


def test_parquet_without_metadata_and_with_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "png", {"p": 8})
    images = [path.read_bytes() for path in sorted((tmp_path / "png/p").iterdir())]
    for split in ("train", "validation"):
        (tmp_path / "set" / split).mkdir(parents=True)
        table = pa.table(
            {"image": [{"bytes": data, "path": None} for data in images], "label": ["b", "a"] * 4}
        )
        pq.write_table(table, tmp_path / "set" / split / "0000.parquet", row_group_size=3)
    source = open_source(tmp_path / "set")
    assert source.labels == ("a", "b")
    assert source.cut == ("test",)
    assert source.splits["val"].name(7) == "validation/0000.parquet#7"
    assert source.splits["val"].raw(7) == images[7]


def refusal(place: Path | str, kind: type[TeselaError]) -> str:
    with pytest.raises(kind) as caught:
        open_source(place)
    assert caught.value.hint
    return caught.value.message


def test_refusals(tmp_path: Path) -> None:
    assert "no data" in refusal(tmp_path / "missing", UsageError)
    (tmp_path / "empty").mkdir()
    assert "no images" in refusal(tmp_path / "empty", DataError)
    assert "one class only" in refusal(make_folder(tmp_path / "one", {"cat": 3}), DataError)
    assert "'c' is in test but not in train" in refusal(
        make_folder(tmp_path / "t", {"train/a": 3, "train/b": 3, "test/c": 2}), DataError
    )
    make_folder(tmp_path / "flat", {"a": 2})
    assert "no class folders" in refusal(tmp_path / "flat" / "a", DataError)
    assert "have colours" in refusal(make_folder(tmp_path / "seg", {"images": 2, "masks": 2}), DataError)


def test_damaged_idx_is_named(tmp_path: Path) -> None:
    for prefix, count in (("train", 4), ("t10k", 4)):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 2, 2) + bytes(range(count * 4))
        )
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + bytes([0, 1, 0, 1])
        )
    assert open_source(tmp_path).splits["test"].read(1)[..., 0].tolist() == [[4, 5], [6, 7]]
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 4, 2, 2) + bytes(3))
    assert "promises" in refusal(tmp_path, DataError)


def test_idx_files_of_two_sets_are_not_mixed(tmp_path: Path) -> None:
    """Prefixes of EMNIST say set and split."""

    def write(prefix: str) -> None:
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, 4, 2, 2) + bytes(range(16))
        )
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, 4) + bytes([0, 1, 0, 1])
        )

    write("emnist-letters-train")
    write("emnist-letters-test")
    assert open_source(tmp_path).splits["test"].name(3) == "emnist-letters-test-images-idx3-ubyte#3"
    write("emnist-digits-train")
    assert "two sets of IDX files: emnist-digits-train and emnist-letters-train" in refusal(
        tmp_path, DataError
    )
