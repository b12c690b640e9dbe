"""Exact duplicates on one side of every cut, and what ``data check`` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pictures import files_of, make_picture, make_pictures

from tesela.cli.main import run
from tesela.core.files import sha256_bytes
from tesela.data.check import check
from tesela.data.config import DataConfig
from tesela.data.open import find_source, open_source
from tesela.data.source import ArrayItems, Selection, Source
from tesela.data.sources.twins import twin_groups
from tesela.data.split import cut
from tesela.data.targets import label_counts


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """40 + 40 pictures; ten are there twice, one four times, and four under both labels."""
    root = make_pictures(tmp_path / "data", {"benign": 40, "malignant": 40})
    for number in range(10):
        (root / f"benign/copy{number}.png").write_bytes((root / f"benign/{number:03d}.png").read_bytes())
    for number in range(3):
        (root / f"malignant/z{number}.png").write_bytes((root / "malignant/030.png").read_bytes())
    for number in range(4):
        (root / f"malignant/both{number}.png").write_bytes(
            (root / f"benign/{20 + number:03d}.png").read_bytes()
        )
    return root


def sides(source: Source) -> dict[bytes, set[str]]:
    """The splits in which each content lies."""
    found: dict[bytes, set[str]] = {}
    for split, files in files_of(source).items():
        for path, _ in files:
            found.setdefault(Path(path).read_bytes(), set()).add(split)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_duplicates_are_never_apart(copied: Path, seed: int) -> None:
    source = open_source(copied, config=DataConfig(split_seed=seed, val_fraction=0.3, test_fraction=0.3))
    found = sides(source)
    assert len(found) == 80
    assert all(len(splits) == 1 for splits in found.values())
    for number in range(4):
        assert found[(copied / f"malignant/both{number}.png").read_bytes()] == {"train"}
    counts = label_counts(source)
    assert sum(counts["test"]) >= 20 and sum(counts["val"]) >= 20 and min(counts["train"]) >= 8


def test_all_copies_in_one_class_leave_each_split_something(tmp_path: Path) -> None:
    """Three pictures, each there four times, are three images to a cut."""
    root = make_pictures(tmp_path, {"blue": 3, "red": 3})
    for label in ("blue", "red"):
        for number in range(3):
            for copy in range(3):
                content = (root / label / f"{number:03d}.png").read_bytes()
                (root / label / f"{number}-{copy}.png").write_bytes(content)
    assert label_counts(open_source(root)) == {"train": [4, 4], "val": [4, 4], "test": [4, 4]}


def test_a_cut_without_duplicates_is_what_it_was() -> None:
    """Digests of the names in each split of the digits, from before duplicates counted."""
    source = open_source("digits", config=DataConfig(split_seed=3))
    digests = {}
    for split, items in source.splits.items():
        names = "\n".join(items.name(row) for row in range(len(items)))
        digests[split] = sha256_bytes(names.encode())[:16]
    assert digests == {"train": "31a7daf927bedb3b", "val": "3151c2c19dfbad13", "test": "911b9fc8fcef9059"}
    assert twin_groups(find_source("digits").splits["train"]) == []


def test_the_cut_does_not_depend_on_the_order_of_rows() -> None:
    pixels = np.arange(40, dtype=np.uint8).repeat(4).reshape(40, 2, 2, 1)
    pixels[1::2] = pixels[::2]
    order = np.random.default_rng(0).permutation(40)
    items = ArrayItems(pixels, np.zeros(40, np.int64), prefix="p")
    turned = Selection(items, order)
    strata = np.zeros(40, np.int64)
    fractions = {"val": 0.2, "test": 0.2}
    one = cut(items, strata, fractions, seed=5, twins=twin_groups(items))
    other = cut(turned, strata, fractions, seed=5, twins=twin_groups(turned))
    for split in ("train", "val", "test"):
        names = [{part[split].name(row) for row in range(len(part[split]))} for part in (one, other)]
        assert names[0] == names[1] and len(names[0]) == {"train": 24, "val": 8, "test": 8}[split]


def test_twins_of_encoded_rows(tmp_path: Path) -> None:
    files = [make_picture(tmp_path / f"{number}.png", number % 5).read_bytes() for number in range(8)]
    rows = [{"bytes": data, "path": None} for data in [*files, None, None, b"", b""]]
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 6}), tmp_path / "t.parquet", row_group_size=3)
    items = find_source(tmp_path / "t.parquet").splits["train"]
    assert [group.tolist() for group in twin_groups(items)] == [[0, 5], [1, 6], [2, 7]]


def test_files_of_one_size_and_one_end_are_told_apart(tmp_path: Path) -> None:
    """Neither size nor the last bytes make a duplicate; empty and missing files are none."""
    root = make_pictures(tmp_path, {"blue": 2, "red": 2})
    for name, content in (("a", b"a" * 9000), ("b", b"b" + b"a" * 8999), ("c", b"a" * 9000)):
        (root / f"red/{name}.png").write_bytes(content)
    for name in ("d", "e"):
        (root / f"blue/{name}.png").write_bytes(b"")
        (root / f"blue/{name}{name}.png").symlink_to("nowhere.png")
    items = find_source(root).splits["train"]
    groups = [[items.name(row) for row in group] for group in twin_groups(items)]
    assert groups == [["red/a.png", "red/c.png"]]


def test_twins_of_a_manifest_with_absolute_paths(copied: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}\n" for path in sorted(copied.rglob("*.png"))]
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(rows))
    found = sides(open_source(tmp_path / "m.csv", config=DataConfig(val_fraction=0.3, test_fraction=0.3)))
    assert len(found) == 80 and all(len(splits) == 1 for splits in found.values())


def test_check_lists_conflicts_and_counts_copies(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(open_source(copied))
    conflicts = {frozenset((twin.first, twin.second)) for twin in report.conflicts}
    assert conflicts == {
        frozenset((f"benign/{20 + number:03d}.png", f"malignant/both{number}.png")) for number in range(4)
    }
    assert {twin.labels for twin in report.conflicts} == {("benign", "malignant")}
    assert report.leaks == [] and len(report.duplicates) == 17
    notes = " ".join(report.notes)
    assert "4 images are there under another label too" in notes
    assert "benign/020.png (benign) and malignant/both0.png (malignant)" in notes
    assert "17 images are copies of others in the same split" in notes
    assert run(["data", "check", str(copied), "--json"]) == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert len(answer["conflicts"]) == 4 and answer["conflicts"][0]["labels"] == ["benign", "malignant"]
    assert run(["data", "check", str(copied)]) == 0
    shown = capsys.readouterr()
    assert "same pixels as benign and malignant: benign/020.png, malignant/both0.png" in shown.out


def test_check_names_empty_classes(tmp_path: Path) -> None:
    report = check(open_source(make_pictures(tmp_path, {"blue": 9, "red": 9, "rare": 0})))
    assert "folders without images, which are no classes: rare" in report.notes
