"""Manifests as spreadsheets and tools write them, and the refusals that say what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pictures import files_of, make_picture, make_pictures

from tesela.core.errors import DataError
from tesela.data.open import find_source, open_source
from tesela.data.source import Source
from tesela.data.targets import label_counts

ROWS = [(f"data/{label}/{number:03d}.png", label) for label in ("blue", "red") for number in range(3)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data", {"blue": 3, "red": 3})
    return tmp_path


def lines(form: str, heading: str = "", rows: list[tuple[str, str]] = ROWS) -> str:
    return heading + "".join(form.format(path, label) for path, label in rows)


def written(place: Path, name: str, content: str | bytes) -> Path:
    path = place / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def is_right(source: Source, place: Path) -> None:
    expected = sorted(((place / path).resolve().as_posix(), label) for path, label in ROWS)
    assert files_of(source) == {"train": expected}


WRITERS: dict[str, Callable[[], tuple[str, str | bytes]]] = {
    "commas": lambda: ("a.csv", lines("{},{}\n", "path,label\n")),
    "semicolons": lambda: ("a.csv", lines("{};{}\n", "path;label\n")),
    "tabs": lambda: ("a.tsv", lines("{}\t{}\n", "path\tlabel\n")),
    "bars": lambda: ("a.txt", lines("{}|{}\n", "path|label\n")),
    "capitals": lambda: ("A.CSV", lines("{},{}\n", "Path,LABEL\n")),
    "spaces": lambda: ("a.csv", lines("{}, {}\n", "path, label\n")),
    "quoted after spaces": lambda: ("a.csv", lines('"{}", "{}"\n', "path,label\n")),
    "synonyms": lambda: ("a.csv", lines("{},{}\n", "Image Path,Category\n")),
    "hyphens": lambda: ("a.csv", lines("{},{}\n", " File-Name ,class_name\n")),
    "rest of commas": lambda: ("a.csv", lines("{},{},,\n", "path,label,,\n") + ",,,\n\n , \n"),
    "index of pandas": lambda: ("a.csv", ",path,label\n" + lines("0,{},{}\n")),
    "backslashes": lambda: ("a.csv", lines("{},{}\r\n", "path,label\r\n").replace("/", "\\")),
    "no heading": lambda: ("a.csv", lines("{},{}\n")),
    "no heading, semicolons": lambda: ("a.csv", lines("{};{}\n")),
    "lines of path and number": lambda: ("a.txt", lines("{} {}\n")),
    "mark of UTF-8": lambda: ("a.csv", "\ufeff" + lines("{},{}\n", "path,label\n")),
    "Excel's Unicode text": lambda: ("a.txt", lines("{}\t{}\r\n", "path\tlabel\r\n").encode("utf-16")),
    "UTF-16 without a mark": lambda: ("a.csv", lines("{},{}\n", "path,label\n").encode("utf-16-le")),
    "Excel's sep": lambda: ("a.csv", "sep=;\r\n" + lines("{};{}\r\n", "path;label\r\n")),
    "old Mac line ends": lambda: ("a.csv", lines("{},{}\r", "path,label\r")),
    "blank line first": lambda: ("a.csv", "\n" + lines("{},{}\n", "path,label\n")),
    "JSON lines": lambda: ("a.jsonl", lines('{{"path": "{}", "label": "{}"}}\r\n\r\n')),
    "JSON array": lambda: ("a.json", json.dumps([{"image": path, "Label": label} for path, label in ROWS])),
    "JSON array as lines": lambda: ("a.jsonl", json.dumps([{"file": p, "class": n} for p, n in ROWS])),
    "JSON lines called .json": lambda: ("a.json", lines('{{"path": "{}", "label": "{}"}}\n')),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_tables_as_they_are_written(place: Path, kind: str) -> None:
    name, content = WRITERS[kind]()
    is_right(find_source(written(place, name, content)), place)


def test_absolute_paths_and_paths_of_the_manifest(place: Path) -> None:
    (place / "lists").mkdir()
    absolute = [(str(place / path), label) for path, label in ROWS]
    is_right(find_source(written(place, "lists/a.csv", lines("{},{}\n", "path,label\n", absolute))), place)
    relative = [(f"../{path}", label) for path, label in ROWS]
    is_right(find_source(written(place, "lists/b.csv", lines("{},{}\n", "path,label\n", relative))), place)


def test_delimiters_within_quotes_and_within_names(place: Path) -> None:
    for name in ("data/red/a, b.png", "data/red/a;b.png", "data/red/ c.png"):
        make_picture(place / name, 7)
    text = 'path;label\n"data/red/a;b.png";red\ndata/red/a, b.png;red\ndata/red/ c.png;red\n'
    source = find_source(written(place, "a.csv", text + lines("{};{}\n")))
    assert label_counts(source) == {"train": [3, 6]}
    assert {source.splits["train"].name(row) for row in range(3)} == {
        *("data/red/a;b.png", "data/red/a, b.png", "data/red/ c.png")
    }
    with pytest.raises(DataError, match="row 1 has 3 cells under 2 headings"):
        find_source(written(place, "b.csv", "path,label\ndata/red/a, b.png,red\n"))


@pytest.mark.parametrize(
    ("heading", "words", "splits"),
    [
        ("split", ("TRAIN", "Validation", "test_set"), ("train", "val", "test")),
        ("Subset", ("training", "dev", ""), ("train", "val", "train")),
        ("set", ("train", "eval", "test"), ("train", "val", "test")),
        ("set", ("train", "eval", "train"), ("train", "test", "train")),
        ("set", ("A", "B", "A"), ("train", "train", "train")),
        ("is_valid", ("True", "False", "true"), ("val", "train", "val")),
        ("Is Test", ("1", "0", ""), ("test", "train", "train")),
    ],
)
def test_splits_of_rows(place: Path, heading: str, words: tuple[str, ...], splits: tuple[str, ...]) -> None:
    rows = [(path, f"{label},{word}") for (path, label), word in zip(ROWS, words * 2, strict=True)]
    source = find_source(written(place, "a.csv", lines("{},{}\n", f"path,label,{heading}\n", rows)))
    expected = {split: 2 * splits.count(split) for split in splits}
    assert {split: len(items) for split, items in source.splits.items()} == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "Bild;Klasse\nx.png;rot\n", "the heading found is Bild, Klasse"),
        ("a.csv", "", "lists no images"),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.csv", "path,label\nnowhere.png,red\n", "files that are not there, such as nowhere.png"),
        ("a.csv", "path,label\ndata/red/000.png,\ndata/red/001.png,red\n", "row 1 lacks its label"),
        ("a.csv", "path,label\n,red\ndata/red/001.png,red\n", "row 1 lacks its path"),
        ("a.csv", "path,label,split\ndata/red/000.png,red,fold3\n", "row 1 has the split 'fold3'"),
        ("a.csv", b"path,label\ncaf\xe9.png,red\n", "no readable manifest"),
        ("a.jsonl", '{"path": "a.png", "label": "b"}\n{"path": \n', "line 2 is no JSON"),
        ("a.jsonl", "[1, 2]", "row 1 is no object"),
        ("a.jsonl", '{"path": "data/red/000.png", "label": ["red"]}\n', "one label per image is needed"),
        ("a.json", '[{"path": "data/red/000.png", "label": {"id": 1}}]', "one label per image is needed"),
    ],
)  # fmt: skip
def test_refusals_say_what_was_found(place: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        find_source(written(place, name, text))
    assert said in caught.value.message
    assert caught.value.hint


def test_a_refused_heading_comes_with_the_names_that_are_taken(place: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_source(written(place, "a.csv", "Bild,Klasse\nx.png,rot\n"))
    assert all(name in caught.value.hint for name in ("path", "label", "split", "file_name", "category"))


def labels_of_rows(place: Path, values: list[object], suffix: str) -> tuple[str, ...]:
    """The classes of these labels, one row each."""
    paths = [path for path, _ in ROWS[: len(values)]]
    if suffix == ".jsonl":
        text = "".join(json.dumps({"path": p, "label": v}) + "\n" for p, v in zip(paths, values, strict=True))
    else:
        text = "path,label\n" + "".join(f"{p},{v}\n" for p, v in zip(paths, values, strict=True))
    return find_source(written(place, f"a{suffix}", text)).labels


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2, 10], ("1", "2", "10")),
        ([1.0, 2.0, 10.0], ("1", "2", "10")),
        ([1, 2.0, 2], ("1", "2")),
        ([1.5, 2.0, 1.5], ("1.5", "2.0")),
        (["e\u0301t\u00e9", "\u00e9te\u0301", "x"], ("x", "\u00e9t\u00e9")),
        ([" red ", "red", "b\u2028c"], ("b\u2028c", "red")),
        ([-1, 1, 1], ("1", "-1")),
    ],
)
def test_labels_read_alike_in_every_format(
    place: Path, values: list[object], labels: tuple[str, ...], suffix: str
) -> None:
    assert labels_of_rows(place, values, suffix) == labels


def test_booleans_and_nothings_of_json(place: Path) -> None:
    assert labels_of_rows(place, [True, False], ".jsonl") == ("false", "true")
    for nothing in (None, float("nan"), ""):
        with pytest.raises(DataError, match="row 2 lacks its label"):
            labels_of_rows(place, ["red", nothing], ".jsonl")


def test_measurements_are_no_classes(place: Path) -> None:
    rows = "".join(f"data/red/000.png,{number / 7:.4f}\n" for number in range(40))
    with pytest.raises(DataError, match="40 different numbers as labels: measurements, no classes"):
        find_source(written(place, "a.csv", "path,label\n" + rows))


def test_no_labels_at_all_names_the_columns(place: Path) -> None:
    path = written(place, "a.csv", "path,healthy,rust\n" + lines("{},1,0\n"))
    with pytest.raises(DataError, match="no labels") as caught:
        open_source(path)
    assert "healthy, rust" in caught.value.hint


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_beside_the_images(place: Path, name: str) -> None:
    """The hub's layout: file_name relative to the table, in one folder or one of each split."""

    def table(folder: Path, rows: list[tuple[str, str]]) -> None:
        csv = "file_name,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
        json_lines = "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows)
        (folder / name).write_text(csv if name.endswith("csv") else json_lines)

    table(place, ROWS)
    is_right(find_source(place), place)
    make_pictures(place / "split", {"train": 3, "test": 2})
    table(place / "split/train", [("000.png", "red"), ("001.png", "blue"), ("002.png", "red")])
    table(place / "split/test", [("000.png", "red"), ("001.png", "blue")])
    source = find_source(place / "split")
    assert label_counts(source) == {"train": [1, 2], "test": [1, 1]}
    assert source.splits["test"].name(1) == "test/001.png"


def test_a_table_without_labels_leaves_class_folders_as_they_are(place: Path) -> None:
    written(place / "data", "metadata.csv", "file_name,text\nred/000.png,hello\n")
    assert find_source(place / "data").kind == "folder"


def test_paths_that_say_splits_which_no_column_does(place: Path) -> None:
    make_pictures(place, {"train": 3, "test": 3})
    rows = [
        (f"{split}/{number:03d}.png", "ab"[number % 2]) for split in ("train", "test") for number in range(3)
    ]
    source = find_source(written(place, "a.csv", lines("{},{}\n", "path,label\n", rows)))
    assert label_counts(source) == {"train": [4, 2]}
    assert source.notes == ("no column says the splits, so the folders test, train count as one",)


def test_hashes_in_names_are_no_rows(place: Path) -> None:
    make_picture(place / "data/red/a.parquet#1.png", 1)
    make_picture(place / "data/red/x#5", 2)
    text = "path,label\ndata/red/a.parquet#1.png,red\ndata/red/x#5,red\n" + lines("{},{}\n")
    assert label_counts(find_source(written(place, "a.csv", text))) == {"train": [3, 5]}
    with pytest.raises(DataError, match="mixes files and rows of other files, such as digits#3"):
        find_source(written(place, "b.csv", "path,label\ndigits#3,3\ndata/red/000.png,red\n"))
