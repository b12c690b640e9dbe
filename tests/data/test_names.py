"""Any name that a file system takes goes in, and comes back out of a manifest."""

from __future__ import annotations

import json
import os
import struct
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pictures import files_of, make_picture, make_pictures

from tesela.cli.main import run
from tesela.core.errors import UsageError
from tesela.data.config import DataConfig
from tesela.data.open import find_source, open_source
from tesela.data.random import name_keys
from tesela.data.sources.tables.writing import write_manifest
from tesela.data.targets import LabelTargets, label_counts, match_labels

NAMES = [
    *(b"caf\xe9.png", b"\xff\xfe.png", b"#1.png", b"x#5.png", b"x.parquet#1.png", b'"q".png', b"q'uote.png"),
    *(b"a\nb.png", b"a\rb.png", b"a\tb.png", b" lead.png", b"trail .png", b"a,b;c|d.png", b"-dash.png"),
    *(b"back\\slash.png", b"lit\\xe9.png", b"%E9.png", b"n" * 251 + b".png", b".hidden.png", b"UP.PNG"),
    *(
        name.encode()
        for name in ("u\u2028x.png", "u\x85x.png", "e\u0301.png", "\u00e9.png", "\U0001f600.png")
    ),
    *(b"path,label.png", b"sep=.png", b"\\ud83d.png"),
]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of two classes, one whose name is no UTF-8, with every name in each."""
    root = tmp_path / "data"
    for start, folder in enumerate((b"red", b"roj\xe9")):
        for number, name in enumerate(NAMES):
            place = os.path.join(os.fsencode(root), folder, name)
            make_picture(Path(os.fsdecode(place)), 100 * start + number)
    return root


def test_odd_names_are_images_of_their_classes(odd: Path) -> None:
    source = open_source(odd)
    assert source.labels == ("red", "roj\\xe9")
    counts = label_counts(source)
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [len(NAMES)] * 2
    for items in source.splits.values():
        for row in range(len(items)):
            items.name(row).encode()
            assert items.read(row).shape == (8, 6, 3)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("place", ["m", "elsewhere/m", "data/m"])
def test_a_manifest_reads_back_to_the_same_files(odd: Path, tmp_path: Path, suffix: str, place: str) -> None:
    source = open_source(odd)
    out = tmp_path / f"{place}{suffix}"
    write_manifest(source, out, root=odd)
    again = open_source(out)
    assert again.labels == source.labels
    assert files_of(again) == files_of(source)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_folder_itself_may_be_called_anything(odd: Path, tmp_path: Path, suffix: str) -> None:
    """Its name goes into configurations and reports too."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/dat\xe9"))
    odd.rename(place)
    config = DataConfig(source=str(place))
    config.source.encode()
    source = open_source(config.source, config=config)
    assert source.name == "dat\\xe9"
    write_manifest(source, tmp_path / f"m{suffix}", root=place)
    assert files_of(open_source(tmp_path / f"m{suffix}")) == files_of(source)


def test_split_verb_takes_odd_names(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("s.csv", "s.jsonl"):
        assert run(["data", "split", str(odd), "--out", str(tmp_path / name), "--json"]) == 0
        splits = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["splits"]
        assert sum(splits.values()) == 2 * len(NAMES)
        assert {split: len(items) for split, items in open_source(tmp_path / name).splits.items()} == splits
    assert run(["data", "check", str(odd), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unreadable"] == []
    assert run(["data", "split", str(odd), "--out", str(tmp_path / "s.xlsx")]) == 2
    with pytest.raises(UsageError, match=r"cannot end in \.xlsx"):
        write_manifest(open_source(odd), tmp_path / "s.xlsx", root=odd)


def test_split_verb_knows_where_names_begin(tmp_path: Path) -> None:
    """Of rows of Parquet and IDX files, of digits, of a manifest, of a folder written with escapes."""
    make_pictures(Path(os.fsdecode(os.fsencode(tmp_path) + b"/dat\xe9")), {"blue": 9, "red": 9})
    data = [make_picture(tmp_path / "x.png", number).read_bytes() for number in range(12)]
    (tmp_path / "rows").mkdir()
    table = pa.table({"image": [{"bytes": one, "path": None} for one in data], "label": [0, 1] * 6})
    pq.write_table(table, tmp_path / "rows/train.parquet")
    (tmp_path / "idx").mkdir()
    pixels = struct.pack(">IIII", 0x803, 12, 2, 2) + bytes(range(48))
    (tmp_path / "idx/train-images-idx3-ubyte").write_bytes(pixels)
    (tmp_path / "idx/train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 12) + bytes([0, 1] * 6))
    places = [tmp_path / "rows", tmp_path / "idx", Path("digits"), tmp_path / "dat\\xe9"]
    for number, place in enumerate(places):
        out, again = tmp_path / f"out/{number}.csv", tmp_path / f"again{number}.jsonl"
        assert run(["data", "split", str(place), "--out", str(out)]) == 0
        assert run(["data", "split", str(out), "--out", str(again)]) == 0
        source, found = open_source(place), open_source(again)
        for split, items in source.splits.items():
            assert len(found.splits[split]) == len(items) > 0
            assert found.splits[split].read(len(items) - 1).tolist() == items.read(len(items) - 1).tolist()


def test_one_class_however_its_letters_are_coded(tmp_path: Path) -> None:
    composed, taken_apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    make_pictures(tmp_path, {f"train/{composed}": 3, "train/tea": 3, f"test/{taken_apart}": 2, "test/tea": 1})
    source = find_source(tmp_path)
    assert source.labels == (composed, "tea")
    assert label_counts(source) == {"train": [3, 3], "test": [2, 1]}
    make_pictures(tmp_path / "both", {composed: 3, taken_apart: 2, "tea": 2})
    source = find_source(tmp_path / "both")
    assert label_counts(source) == {"train": [5, 2]}
    assert source.notes == (f"two folders in . are one class: {composed}",)
    assert match_labels([composed], ["tea", taken_apart]).tolist() == [1]
    assert open_source(tmp_path / "both", config=DataConfig(classes=("tea", taken_apart))).labels == (
        "tea",
        composed,
    )
    assert LabelTargets(["x", "tea", taken_apart]).matched([composed, "x", "tea", taken_apart]) is not None


def test_a_manifest_of_the_other_unicode_form_finds_its_files(tmp_path: Path) -> None:
    taken_apart = unicodedata.normalize("NFD", "\u00e9t\u00e9.png")
    for label in ("blue", "red"):
        make_picture(tmp_path / label / taken_apart, 1)
    text = "".join(f"{label}/\u00e9t\u00e9.png,{label}\n" for label in ("blue", "red"))
    (tmp_path / "a.csv").write_text("path,label\n" + text)
    items = find_source(tmp_path / "a.csv").splits["train"]
    assert [items.name(row) for row in range(2)] == [f"{label}/{taken_apart}" for label in ("blue", "red")]


def test_the_cut_follows_bytes_and_not_how_they_are_written() -> None:
    """A split of files with odd names is what it was before they were written out."""
    raw = [os.fsdecode(name) for name in NAMES]
    written = ["caf\\xe9.png", "\\xff\\xfe.png"]
    assert name_keys(3, written).tolist() == name_keys(3, raw[:2]).tolist()


def test_hidden_images_are_used_and_named(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"blue": 3, "red": 3})
    make_picture(tmp_path / "red/.secret.png", 9)
    source = find_source(tmp_path)
    assert label_counts(source) == {"train": [3, 4]}
    assert "red/.secret.png" in source.notes[0]
