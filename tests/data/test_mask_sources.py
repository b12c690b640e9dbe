"""Masks from COCO's JSON, Parquet, manifests and the hub; check, show and split of data with masks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.data.test_masks import SIZE, image_of, mask_of, opened, spoil, write

from tesela.cli.main import run
from tesela.core.errors import DataError, UsageError
from tesela.data.masks.targets import MaskTargets
from tesela.data.source import Source
from tesela.data.sources.coco import run_lengths
from tesela.imaging.decode import decode
from tesela.imaging.mask import IGNORE


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def agrees(source: Source) -> int:
    """Every image with its mask: the red channel of one tells the other. How many there are."""
    assert source.masks is not None
    targets, count = MaskTargets(source.masks), 0
    for items in source.splits.values():
        for row in range(len(items)):
            assert np.array_equal(items.read(row)[..., 0], targets.full(items, row) * 10)
            count += 1
    return count


def write_parquet(path: Path, *, column: str = "annotation", first: int = 0) -> None:
    rows = [
        {
            "image": {"bytes": png(image_of(mask_of(number))), "path": f"{number}.png"},
            column: {"bytes": png(mask_of(number)), "path": f"{number}.png"},
        }
        for number in range(first, first + 6)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("column", ["annotation", "label", "mask"])
def test_parquet_with_a_mask_column(column: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", column=column)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", column=column, first=6)
    source = opened(tmp_path / "data", test_fraction=0.0)
    assert source.kind == "parquet" and source.labels == ("class 0", "class 1", "class 2")
    assert agrees(source) == 12 and len(source.splits["val"]) == 6


def test_manifests_with_a_mask_column(tmp_path: Path) -> None:
    """What ``data split`` writes is read again, with the same splits."""
    write(tmp_path)
    first = opened(tmp_path)
    assert run(["data", "split", str(tmp_path), "--out", str(tmp_path / "splits.csv")]) == 0
    with (tmp_path / "splits.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0].keys() == {"path", "mask", "split"}
    again = opened(tmp_path / "splits.csv")
    assert agrees(again) == 6 and again.labels == first.labels
    assert {split: len(items) for split, items in again.splits.items()} == {
        split: len(items) for split, items in first.splits.items()
    }
    (tmp_path / "bad.csv").write_text("path,mask\nimages/00.png,masks/00.png\nimages/01.png,\n")
    with pytest.raises(DataError, match="row 2 lacks its mask"):
        opened(tmp_path / "bad.csv")


def compressed(mask: NDArray[np.bool_]) -> str:
    """Reference encoder of COCO's text form, after its documentation."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    counts = [0, *counts] if flat[0] else counts
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr((bits | (0x20 if more else 0)) + 48)
            if not more:
                break
    return text


def test_run_lengths_both_forms() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        mask = np.kron(generator.random((5, 7)) < 0.4, np.ones((9, 11))).astype(bool)
        flat = mask.T.ravel().astype(int)
        counts, last, length = [], 0, 0
        for value in flat.tolist():
            if value != last:
                counts.append(length)
                last, length = value, 0
            length += 1
        counts.append(length)
        for form in (counts, compressed(mask)):
            assert np.array_equal(run_lengths({"size": list(mask.shape), "counts": form}, "x"), mask)
    with pytest.raises(Exception, match="do not fill"):
        run_lengths({"size": [3, 3], "counts": [4]}, "x")


def coco(folder: Path, *, images: int = 4) -> dict[str, Any]:
    """Images with a large box, a small one on top of it, and a crowd."""
    folder.mkdir(parents=True)
    tree: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    crowd = np.zeros(SIZE, bool)
    crowd[10:, 12:] = True
    for number in range(images):
        Image.fromarray(image_of(mask_of(number))).save(folder / f"{number}.png")
        tree["images"].append({"id": number, "file_name": f"{number}.png", "height": 12, "width": 16})
        shapes = [
            (3, [[4, 3, 6, 3, 6, 5, 4, 5]], 4, 0),
            (7, [[2, 2, 10, 2, 10, 8, 2, 8]], 48, 0),
            (3, {"size": [12, 16], "counts": compressed(crowd)}, 8, 1),
        ]
        for category, shape, area, is_crowd in shapes:
            tree["annotations"].append(
                {
                    "image_id": number, "category_id": category, "segmentation": shape,
                    "area": area, "iscrowd": is_crowd,
                }
            )  # fmt: skip
    return tree


def expected() -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    mask[2:8, 2:10] = 2
    mask[3:5, 4:6] = 1
    mask[10:, 12:] = IGNORE
    return mask


@pytest.mark.parametrize("layout", ["coco", "beside", "one file"])
def test_coco(layout: str, tmp_path: Path) -> None:
    if layout == "coco":
        for split in ("train2017", "val2017"):
            tree = coco(tmp_path / split)
            (tmp_path / "annotations").mkdir(exist_ok=True)
            (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))
        place = tmp_path
    elif layout == "beside":
        for split in ("train", "valid"):
            tree = coco(tmp_path / split)
            (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(tree))
        place = tmp_path
    else:
        tree = coco(tmp_path / "all")
        place = tmp_path / "all" / "shapes.json"
        place.write_text(json.dumps(tree))
    source = opened(place)
    assert (
        source.kind == "coco" and source.labels == ("background", "cat", "dog") and source.masks is not None
    )
    found = MaskTargets(source.masks).full(source.splits["train"], 0)
    # borders of polygons belong to either side
    assert (found != expected()).mean() < 0.12 and np.array_equal(found[3:5, 4:6], expected()[3:5, 4:6])
    assert np.array_equal(found[10:], expected()[10:])


def test_coco_that_is_broken_is_named(tmp_path: Path) -> None:
    tree = coco(tmp_path / "all")
    (tmp_path / "all" / "2.png").unlink()
    (tmp_path / "all" / "shapes.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"1 images that shapes\.json names are not in"):
        opened(tmp_path / "all" / "shapes.json")
    tree["annotations"][0]["category_id"] = 99
    (tmp_path / "all" / "shapes.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="is no COCO file"):
        opened(tmp_path / "all" / "shapes.json")


def test_data_sets_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a cache laid out as huggingface_hub lays it out, with the hub out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "datasets--someone--stripes"
    snapshot = repository / "snapshots" / ("1" * 40)
    (snapshot / "data").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    write_parquet(tmp_path / "train-0.parquet")
    data = (tmp_path / "train-0.parquet").read_bytes()
    blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(data)
    (snapshot / "data" / "train-0.parquet").symlink_to(f"../../../blobs/{blob.name}")
    source = opened(Path("hub:someone/stripes"))
    assert source.name == "someone/stripes" and agrees(source) == 6
    with pytest.raises(DataError, match="not in the cache of this machine"):
        opened(Path("hub:someone/else"))
    with pytest.raises(UsageError, match="no name of a data set"):
        opened(Path("hub:a b"))


def test_check_counts_pixels_and_lists_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, count=8)
    assert run(["data", "check", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    train = answer["masks"]["train"]
    assert sum(train["pixels"].values()) == SIZE[0] * SIZE[1] * answer["splits"]["train"]
    assert train["images"]["class 0"] == answer["splits"]["train"] and train["ignored"] == 0
    assert any("classes.csv" in note for note in answer["notes"])
    spoil(tmp_path, "another size")
    file = tmp_path / "masks" / "05.png"
    mask = np.array(Image.open(file))
    mask[:] = 99
    Image.fromarray(mask).save(file)
    assert run(["data", "check", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "masks/02.png" in text and "masks/05.png has the value 99" in text


def test_show_lays_masks_over_images(tmp_path: Path) -> None:
    write(tmp_path)
    words = ["data", "show", str(tmp_path), "--count", "4", "--columns", "2"]
    assert run([*words, "--out", str(tmp_path / "plain.png")]) == 0
    assert run([*words, "--augment", "vflip=1,rotation=30", "--out", str(tmp_path / "moved.png")]) == 0
    plain, moved = decode(tmp_path / "plain.png"), decode(tmp_path / "moved.png")
    assert plain.shape == moved.shape and (plain != moved).any()
    assert (np.ptp(plain.astype(int), axis=2) > 40).mean() > 0.2, "no colours of classes"
