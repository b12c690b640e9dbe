"""Layouts of folders as data sets have them: right splits and classes, or a refusal that names the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.pictures import make_picture, make_pictures

from tesela.core.errors import DataError, UsageError
from tesela.data.open import find_source, open_source
from tesela.data.sources.layout.split_names import split_in, split_word
from tesela.data.targets import label_counts

AB = ("blue", "red")


def with_classes(*places: str, count: int = 4) -> dict[str, int]:
    """{folder of each class below each place: images}."""
    return {f"{place}/{label}".lstrip("/"): count for place in places for label in AB}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "TRAIN", "Training", "train_set", "trainset", "seg_train")),
        *(
            (name, "train")
            for name in ("images_train", "train_images", "TrainImages", "train2017", "01-train")
        ),
        *((name, "train") for name in ("trainval", "train_val", "training data", "Train(2)", "data_train")),
        *((name, "val") for name in ("val", "valid", "VALIDATION", "dev", "val_set", "imgs-val", "validset")),
        *((name, "test") for name in ("test", "Testing", "test_set", "testset", "seg_test", "hold_out")),
        *((name, "eval") for name in ("eval", "evaluation", "eval_set")),
        *((name, None) for name in ("trains", "cat", "training wheels", "invalid", "images", "seg_pred", "")),
        *((name, None) for name in ("train_test", "contest", "developer", "value", "dataset" * 40 + "x")),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_word(name) == split


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("train-00000-of-00002", "train"),
        ("test-00000-of-00001-2a3bce1f8c9d0e1f", "test"),
        ("cifar10-test", "test"),
        ("mnist_validation_001", "val"),
        ("train-test", "train"),
        ("part-0", None),
        ("0000", None),
        ("a-train-b-test", None),
    ],
)
def test_names_of_files_of_splits(stem: str, split: str | None) -> None:
    assert split_in(stem) == split


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("TRAIN", "VALID", "TEST"), ("train", "val", "test")),
        (("training", "evaluation"), ("train", "test")),
        (("training", "validation", "evaluation"), ("train", "val", "test")),
        (("train", "eval", "test"), ("train", "val", "test")),
        (("train_images", "val_images"), ("train", "val")),
        (("train", "dev", "holdout"), ("train", "val", "test")),
    ],
)
@pytest.mark.parametrize("stray", [None, "__MACOSX", ".git", "results", "logs", "@eaDir"])
def test_splits_by_usual_names(
    tmp_path: Path, names: tuple[str, ...], splits: tuple[str, ...], stray: str | None
) -> None:
    make_pictures(tmp_path, with_classes(*names))
    if stray:
        (tmp_path / stray).mkdir()
        (tmp_path / stray / "notes.txt").write_text("x")
    source = find_source(tmp_path)
    assert source.labels == AB
    assert label_counts(source) == {split: [4, 4] for split in splits}
    for split, name in zip(splits, names, strict=True):
        items = source.splits[split]
        assert {items.name(index).split("/")[0] for index in range(len(items))} == {name}


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    make_pictures(tmp_path, with_classes(""))
    for place in ("__MACOSX/blue/._000.png", "blue/._000.png", "blue/.ipynb_checkpoints/000-checkpoint.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"\0\5\x16\7")
    make_picture(tmp_path / "red/@eaDir/000.png/SYNOPHOTO_THUMB.png", 5)
    for name in ("blue/Thumbs.db", "red/.DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    source = open_source(tmp_path)
    assert label_counts(find_source(tmp_path)) == {"train": [4, 4]}
    assert source.ignored == () and source.notes == ()


@pytest.mark.parametrize(
    ("layout", "counts", "noted"),
    [
        ({"photos/blue": 4, "photos/red": 4}, {"train": [4, 4]}, "photos"),
        ({"a/photos/photos/blue": 4, "a/photos/photos/red": 4}, {"train": [4, 4]}, "a/photos/photos"),
        ({"101_ObjectCategories/blue": 4, "101_ObjectCategories/red": 4, "Annotations": 0}, {"train": [4, 4]},
         "101_ObjectCategories"),
        (with_classes("imagenette2/train", "imagenette2/val"), {"train": [4, 4], "val": [4, 4]},
         "imagenette2"),
        (with_classes("seg_train/seg_train", "seg_test/seg_test"), {"train": [4, 4], "test": [4, 4]}, ""),
        ({**with_classes("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred": 3},
         {"train": [4, 4], "test": [4, 4]}, "seg_pred"),
        (with_classes("train/animals", "test/animals"), {"train": [4, 4], "test": [4, 4]}, ""),
        ({**with_classes("train/a/images"), "test/a/images/red": 2}, {"train": [4, 4], "test": [0, 2]}, ""),
        ({**with_classes("set/set/train", "set/set/valid"), "test/test": 3}, {"train": [4, 4], "val": [4, 4]},
         "test has no class folders, so its 3 images are left aside read from the folder set/set"),
        ({**with_classes("train"), "test": 3}, {"train": [4, 4]}, "test has no labels"),
        ({**with_classes("train"), "test/images": 3}, {"train": [4, 4]}, "test has no labels"),
        ({**with_classes("train", "test"), "results": 2}, {"train": [4, 4], "test": [4, 4]}, "results"),
        ({"blue/train": 4, "red/train": 4, "blue/test": 2, "red/test": 1}, {"train": [4, 4], "test": [2, 1]},
         "inside of the class folders"),
        ({**with_classes(""), "rare": 0}, {"train": [4, 4]}, "rare"),
        ({**with_classes("train", "test"), "train/rare": 0}, {"train": [4, 4], "test": [4, 4]}, "train/rare"),
        ({"blue/2020/01": 4, "red/2021": 2, "red/2022": 2}, {"train": [4, 4]}, ""),
    ],
)  # fmt: skip
def test_layouts_of_published_data(
    tmp_path: Path, layout: dict[str, int], counts: dict[str, list[int]], noted: str
) -> None:
    source = find_source(make_pictures(tmp_path, layout))
    assert source.labels == AB
    assert label_counts(source) == counts
    assert noted in " ".join(source.notes) and bool(noted) == bool(source.notes)


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    source = find_source(make_pictures(tmp_path, {"train": 4, "bus": 4, "car": 4}))
    assert source.labels == ("bus", "car", "train")
    assert source.notes == ("read as classes, not as splits: train",)
    assert find_source(make_pictures(tmp_path / "q", {"valid": 3, "invalid": 3})).labels == (
        "invalid",
        "valid",
    )


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        (
            {**with_classes("train", "test"), "extra": 3},
            "extra (3 images) is no split; beside it: test, train",
        ),
        ({**with_classes("train", "test"), "ground_truth/bad": 3}, "ground_truth"),
        (with_classes("train", "training"), "two folders for one split: train, training"),
        ({"train": 4, "test": 4}, "test, train hold images but no class folders"),
        ({"train": 4, **with_classes("test")}, "train holds images but no class folders"),
        (with_classes("one/train", "two/train"), "one (8 images) has splits of its own; beside it: two"),
        ({**with_classes("one/train"), "cat": 3}, "cat"),
        ({"blue/train": 4, "blue/test": 4, "red": 4}, "blue (8 images) has splits inside"),
        ({"images": 2, "masks/a": 2}, "images and masks"),
    ],
)
def test_ambiguous_layouts_are_refused_by_name(tmp_path: Path, layout: dict[str, int], named: str) -> None:
    with pytest.raises(DataError) as caught:
        find_source(make_pictures(tmp_path, layout))
    assert named in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("layout", [{"": 4}, {"train": 4, "test": 2}])
def test_a_table_beside_loose_images_is_named(tmp_path: Path, layout: dict[str, int]) -> None:
    make_pictures(tmp_path, layout)
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError) as caught:
        find_source(tmp_path)
    assert "labels.csv" in caught.value.hint


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UsageError) as caught:
        find_source(tmp_path / "photos.zip")
    assert "unpack it" in caught.value.hint


def test_a_folder_of_nothing_but_a_test_split_is_no_training_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training images, only test, val"):
        open_source(make_pictures(tmp_path, with_classes("test", "val")))


def test_a_class_that_train_lacks_keeps_its_name(tmp_path: Path) -> None:
    make_pictures(tmp_path, {**with_classes("train"), "test/green": 2})
    with pytest.raises(DataError, match="class 'green' is in test but not in train"):
        open_source(tmp_path)
    make_pictures(tmp_path / "c", {"train/Cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "c")
    assert "'Cat' and 'cat' differ in case only" in caught.value.hint


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """A loop, a link to the parent, a link to a sibling class, a link to photographs elsewhere."""
    data = make_pictures(tmp_path / "data", with_classes("", count=3))
    store = make_pictures(tmp_path / "store", {"green/old": 2})
    for place, goal in (
        ("green", store / "green"),
        ("red/loop", data),
        ("red/up", tmp_path),
        ("alias", data / "blue"),
        ("blue/again", data / "blue"),
        ("blue/more", store / "green"),
    ):
        (data / place).symlink_to(goal, target_is_directory=True)
    source = find_source(data)
    assert source.labels == ("blue", "green", "red")
    items = source.splits["train"]
    names = [items.name(index) for index in range(len(items))]
    assert len({os.path.realpath(data / name) for name in names}) == len(names) == 8
    assert "alias" in source.notes[0] and "red/loop" in source.notes[0]


def test_a_split_may_be_a_link_to_another(tmp_path: Path) -> None:
    make_pictures(tmp_path, with_classes("train", "test"))
    (tmp_path / "val").symlink_to("test", target_is_directory=True)
    assert label_counts(find_source(tmp_path)) == {split: [4, 4] for split in ("train", "val", "test")}


def test_a_pipe_is_no_image_and_a_broken_link_is_an_unreadable_one(tmp_path: Path) -> None:
    make_pictures(tmp_path, with_classes(""))
    os.mkfifo(tmp_path / "blue/pipe.png")
    (tmp_path / "red/gone.png").symlink_to("nowhere.png")
    source = find_source(tmp_path)
    assert label_counts(source) == {"train": [4, 5]}
    assert source.ignored == ("blue/pipe.png",)
