"""Images with masks: layouts, classes, faults, and what reaches the model."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tesela.core.errors import ConfigError, DataError
from tesela.data.augment.augment import Augment
from tesela.data.config import AugmentConfig, DataConfig
from tesela.data.loader import Loader
from tesela.data.masks.targets import MaskTargets
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.imaging.mask import IGNORE, decode_mask, encode_mask, fit_mask, resize_mask
from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec

SIZE = 12, 16
SPEC = ImageSpec(height=12, width=16, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)


def mask_of(number: int, values: tuple[int, ...] = (0, 1, 2)) -> NDArray[np.uint8]:
    """Vertical stripes of the values, moved by ``number``."""
    columns = (np.arange(SIZE[1]) + number) // 4 % len(values)
    return np.broadcast_to(np.array(values, np.uint8)[columns], SIZE).copy()


def image_of(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose red channel tells the mask's value."""
    return np.stack([mask.astype(np.uint8) * 10, *[np.full(SIZE, 7, np.uint8)] * 2], 2)


def write(
    root: Path,
    *,
    images: str = "images",
    masks: str = "masks",
    count: int = 6,
    values: tuple[int, ...] = (0, 1, 2),
    ending: str = "",
    suffix: str = ".png",
) -> Path:
    for number in range(count):
        mask = mask_of(number, values)
        for folder, name, pixels in (
            (images, f"{number:02d}{suffix}", image_of(mask)),
            (masks, f"{number:02d}{ending}.png", mask),
        ):
            file = root / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return root


def opened(root: Path, **options: object) -> Source:
    return open_source(root, config=DataConfig(**options))  # type: ignore[arg-type]


def names(source: Source, split: str = "train") -> list[str]:
    items = source.splits[split]
    return [items.name(index) for index in range(len(items))]


LAYOUTS: dict[str, list[dict[str, str]]] = {
    "side by side": [{}],
    "below splits": [
        {"images": f"{split}/images", "masks": f"{split}/masks"} for split in ("train", "val", "test")
    ],
    "splits below": [
        {"images": f"images/{split}", "masks": f"annotations/{split}"} for split in ("training", "validation")
    ],
    "camvid": [{"images": split, "masks": f"{split}annot"} for split in ("train", "val", "test")],
    "cities": [
        {
            "images": f"leftImg8bit/{split}/bonn",
            "masks": f"gtFine/{split}/bonn",
            "ending": "_gtFine_labelTrainIds",
        }
        for split in ("train", "val")
    ],
    "stems with endings": [{"images": "imgs", "masks": "labels", "ending": "_mask"}],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path) -> None:
    """Every image finds its own mask: the red channel of one tells the value of the other."""
    for place in LAYOUTS[name]:
        write(tmp_path, **place)  # type: ignore[arg-type]
    source = opened(tmp_path)
    assert source.kind == "masks" and source.masks is not None
    targets = MaskTargets(source.masks)
    for split, items in source.splits.items():
        assert len(items) or split == "test" or len(LAYOUTS[name]) == 1
        for row in range(len(items)):
            assert np.array_equal(items.read(row)[..., 0], targets.full(items, row) * 10)
    assert sum(map(len, source.splits.values())) == 6 * len(LAYOUTS[name])


def test_pairs_are_found_whatever_the_suffix(tmp_path: Path) -> None:
    write(tmp_path, suffix=".jpg")
    (tmp_path / "images" / "readme.txt").write_text("x")
    (tmp_path / "masks" / "99.png").write_bytes((tmp_path / "masks" / "00.png").read_bytes())
    source = opened(tmp_path, test_fraction=0.0, val_fraction=0.0)
    assert names(source) == [f"images/{number:02d}.jpg" for number in range(6)]
    assert source.ignored == ("masks/99.png",)


def test_a_split_without_masks_is_left_out(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path, images=f"{split}/images", masks=f"{split}/masks")
    for file in (tmp_path / "test" / "masks").glob("*.png"):
        file.unlink()
    source = opened(tmp_path)
    assert len(source.ignored) == 6 and "test/images/00.png" in source.ignored
    assert len(source.splits["train"]) + len(source.splits["test"]) == 6, "test is cut out of train"


def test_pets_as_their_authors_publish_them(tmp_path: Path) -> None:
    write(tmp_path, masks="annotations/trimaps", values=(1, 2, 3))
    (tmp_path / "annotations" / "trainval.txt").write_text("#Image CLASS-ID\n00 1 1 1\n01 1 1 1\n02 2 1 1\n")
    (tmp_path / "annotations" / "test.txt").write_text("03 1 1 1\n04 1 1 1\n05 1 2 1\n")
    source = opened(tmp_path, val_fraction=0.34)
    assert source.labels == ("pet", "background", "border")
    assert names(source, "test") == ["images/03.png", "images/04.png", "images/05.png"]
    assert len(source.splits["train"]) == 2 and len(source.splits["val"]) == 1


def test_ade20k_counts_from_one(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write(tmp_path, images=f"images/{split}", masks=f"annotations/{split}")
    rows = [
        "Idx\tRatio\tTrain\tVal\tName",
        *(f"{n}\t0\t0\t0\t{name}" for n, name in ((1, "wall, x"), (2, "sky"))),
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    source = opened(tmp_path)
    assert source.labels == ("wall", "sky")
    found = MaskTargets(source.masks).full(source.splits["train"], 0)  # type: ignore[arg-type]
    assert np.array_equal(found, np.array([IGNORE, 0, 1], np.uint8)[mask_of(0)])


def test_names_are_proposed_beside_the_data_and_read_again(tmp_path: Path) -> None:
    write(tmp_path, values=(3, 7, 255))
    source = opened(tmp_path)
    assert source.labels == ("class 3", "class 7") and source.masks is not None
    assert source.masks.ignored == (255,) and "classes.csv" in source.notes[0]
    with (tmp_path / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["value"] for row in rows] == ["3", "7", "255"] and rows[2]["ignored"] == "yes"
    text = (tmp_path / "classes.csv").read_text().replace("class 3", "sea")
    (tmp_path / "classes.csv").write_text(text)
    again = opened(tmp_path)
    assert again.labels == ("sea", "class 7") and again.notes == () and again.masks is not None
    assert again.masks.colours == source.masks.colours


@pytest.mark.parametrize("values", [(0, 255), (0, 1)])
def test_binary_masks(values: tuple[int, int], tmp_path: Path) -> None:
    source = opened(write(tmp_path, values=values))
    assert source.labels == ("background", "foreground")
    targets = MaskTargets(source.masks)  # type: ignore[arg-type]
    assert np.array_equal(targets.full(source.splits["train"], 0), mask_of(0, (0, 1)))


def test_names_and_ignored_values_from_the_settings(tmp_path: Path) -> None:
    source = opened(write(tmp_path), mask_names=("a", "b"), mask_ignore=(1,))
    assert source.labels == ("a", "b") and not (tmp_path / "classes.csv").exists()
    found = MaskTargets(source.masks).full(source.splits["train"], 0)  # type: ignore[arg-type]
    assert np.array_equal(found, np.array([0, IGNORE, 1], np.uint8)[mask_of(0)])
    reduced = opened(tmp_path, mask_names=("b", "c"), reduce_zero=True)
    found = MaskTargets(reduced.masks).full(reduced.splits["train"], 0)  # type: ignore[arg-type]
    assert np.array_equal(found, np.array([IGNORE, 0, 1], np.uint8)[mask_of(0)])


def test_masks_of_colours(tmp_path: Path) -> None:
    write(tmp_path)
    colours = np.array([(128, 64, 128), (0, 0, 142), (0, 0, 0)], np.uint8)
    for file in (tmp_path / "masks").glob("*.png"):
        Image.fromarray(colours[np.array(Image.open(file))]).save(file)
    with pytest.raises(DataError, match="have colours, and no file says"):
        opened(tmp_path)
    (tmp_path / "class_dict.csv").write_text("name, r, g, b\nroad,128,64,128\ncar,0,0,142\nVoid,0,0,0\n")
    source = opened(tmp_path)
    assert source.labels == ("road", "car") and source.masks is not None
    found = MaskTargets(source.masks).full(source.splits["train"], 0)
    assert np.array_equal(found, np.array([0, 1, IGNORE], np.uint8)[mask_of(0)])
    (tmp_path / "class_dict.csv").unlink()
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb\ncar:0,0,142::\nroad:128,64,128::\nvoid:0,0,0::\n"
    )
    assert opened(tmp_path).labels == ("car", "road")


def test_a_palette_gives_its_indices_and_colours(tmp_path: Path) -> None:
    write(tmp_path)
    for file in (tmp_path / "masks").glob("*.png"):
        file.write_bytes(encode_mask(np.array(Image.open(file)), [(1, 2, 3), (40, 50, 60), (7, 8, 9)]))
    assert np.array_equal(decode_mask(tmp_path / "masks" / "00.png"), mask_of(0))
    source = opened(tmp_path)
    assert source.masks is not None and source.masks.colours == ((1, 2, 3), (40, 50, 60), (7, 8, 9))


def spoil(root: Path, kind: str) -> None:
    """Make one fault in the mask ``02.png``."""
    file = root / "masks" / "02.png"
    mask = np.array(Image.open(file))
    if kind == "unknown value":
        (root / "classes.csv").write_text("value,name\n0,a\n1,b\n2,c\n")
        mask[0, 0] = 77
        Image.fromarray(mask).save(file)
    elif kind == "missing":
        file.unlink()
    elif kind == "another size":
        Image.fromarray(mask[:6]).save(file)
    elif kind == "16 bits":
        Image.fromarray(mask.astype(np.uint16)).save(file)
    elif kind == "jpeg":
        file.unlink()
        Image.fromarray(mask).save(file.with_suffix(".jpg"))
    elif kind == "colours":
        (root / "classes.csv").write_text("value,name\n0,a\n1,b\n2,c\n")
        Image.fromarray(np.stack([mask] * 3, 2)).save(file)
    elif kind == "damaged":
        file.write_bytes(file.read_bytes()[:60])


FAULTS = {
    "unknown value": ("has the value 77, which no class has", "classes.csv"),
    "missing": ("1 of 6 images have no mask", "put 02.png into"),
    "another size": ("has 6x16 pixels, its image", "one pixel for each pixel"),
    "16 bits": ("16 bits a pixel", "8 bits a pixel"),
    "jpeg": ("stored as JPEG", "PNG"),
    "colours": ("has colours, and no class has one", "classes.csv"),
    "damaged": ("masks/02.png", ""),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_named_with_the_file_and_a_hint(kind: str, tmp_path: Path) -> None:
    spoil(write(tmp_path), kind)
    message, hint = FAULTS[kind]
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert message in caught.value.message and "02" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_all_ignored_and_classes_of_val_only(tmp_path: Path) -> None:
    write(tmp_path / "a", images="train/images", masks="train/masks")
    write(tmp_path / "a", images="val/images", masks="val/masks", values=(0, 1, 2, 3))
    with pytest.raises(DataError, match="'class 3' is in the masks of val but not of train"):
        opened(tmp_path / "a")
    write(tmp_path / "b", values=(255, 255))
    (tmp_path / "b" / "classes.csv").write_text("value,name,color,ignored\n0,a,,\n1,b,,\n255,,,yes\n")
    with pytest.raises(DataError, match="every pixel of every mask in train is ignored"):
        opened(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"data\.classes"):
        opened(write(tmp_path / "c"), classes=("class 1",))


def test_equal_stems_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "00.jpg").write_bytes((tmp_path / "images" / "00.png").read_bytes())
    with pytest.raises(DataError, match="have one stem"):
        opened(tmp_path)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_masks_are_fitted_as_their_images(resize: str) -> None:
    """Reference: the image, whose colour tells the class, fitted without smoothing."""
    # sizes at which no middle lies on the border of two pixels
    mask = np.random.default_rng(0).integers(0, 4, (23, 17)).astype(np.uint8)
    image = np.stack([mask * 50] * 3, 2)
    spec = replace(SPEC, height=9, width=10, resize=resize, interpolation="nearest")  # type: ignore[arg-type]
    view, found = fit_image(image, spec)[..., 0], fit_mask(mask, spec)
    inside = found != IGNORE
    assert np.array_equal(view[inside], found[inside] * 50)
    assert inside.all() == (resize == "squash")


def test_resizing_takes_the_nearest_pixel() -> None:
    """Reference: the pixel in which the middle of each new pixel lies."""
    mask = np.random.default_rng(0).integers(0, 9, (7, 11)).astype(np.uint8)
    found = resize_mask(mask, (4, 23), box=(1.5, 2.0, 4.0, 8.0))
    for row in range(4):
        for column in range(23):
            y, x = 1.5 + (row + 0.5) * 4.0 / 4, 2.0 + (column + 0.5) * 8.0 / 23
            assert found[row, column] == mask[int(y), int(x)]


AUGMENTS: dict[str, AugmentConfig] = {
    "flips and padded crop": AugmentConfig(hflip=0.5, vflip=0.5, crop_padding=3, crop_fill="zero"),
    "rotation, zoom, shear": AugmentConfig(rotation=20, zoom=0.4, shear=10, translation=0.2),
    "perspective": AugmentConfig(perspective=0.3, hflip=0.5),
    "policy": AugmentConfig(randaugment=2),
}


@pytest.mark.parametrize("name", AUGMENTS)
def test_masks_follow_their_images(name: str) -> None:
    """Reference: a loop over pixels that looks each one up through the same map."""
    config, count = AUGMENTS[name], 5
    augment = Augment(config, SPEC)
    masks = torch.from_numpy(np.stack([mask_of(number) for number in range(count)]))
    movement = augment.movement(SIZE, seed=3, epoch=1, indices=np.arange(count))
    found = movement.masks(masks, outside=IGNORE).numpy()
    for number in range(count):
        mask = masks[number].numpy()
        mask = mask[:, ::-1] if movement.hflip[number] else mask
        mask = mask[::-1] if movement.vflip[number] else mask
        down, right = movement.moves[number].tolist()
        padded = np.full((SIZE[0] + 6, SIZE[1] + 6), IGNORE, np.uint8)
        padded[3 : 3 + SIZE[0], 3 : 3 + SIZE[1]] = mask
        mask = padded[3 + down : 3 + down + SIZE[0], 3 + right : 3 + right + SIZE[1]]
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                expected = mask[row, column]
                if movement.maps is not None:
                    place = np.array([column + 0.5 - SIZE[1] / 2, row + 0.5 - SIZE[0] / 2, 1.0])
                    x, y, w = movement.maps[number] @ place
                    c, r = x / w + SIZE[1] / 2 - 0.5, y / w + SIZE[0] / 2 - 0.5
                    if min(abs(c % 1 - 0.5), abs(r % 1 - 0.5)) < 1e-3:
                        continue  # on the border between two pixels either is nearest
                    i, j = round(r), round(c)
                    inside = 0 <= i < SIZE[0] and 0 <= j < SIZE[1]
                    expected = mask[i, j] if inside else IGNORE
                assert found[number, row, column] == expected


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_batch_has_images_and_masks_of_one_geometry(cache: Literal["ram", "none"], tmp_path: Path) -> None:
    """Wherever the mask says a class, the image's red tells the same, under crops and flips; the masks at
    the images' own sizes are as stored."""
    source = opened(write(tmp_path, count=8), val_fraction=0.0, test_fraction=0.0)
    assert source.masks is not None
    targets = MaskTargets(source.masks)
    augment = AugmentConfig(hflip=0.5, random_resized_crop=cache == "none", crop_scale=(0.3, 1.0))
    loader = Loader(
        source.splits["train"],
        SPEC,
        batch_size=4,
        augment=augment,
        cache=cache,
        targets=targets,
        full=True,
    )
    batches = list(loader.epoch(0))
    assert sum(map(len, batches)) == 8
    for batch in batches:
        red = (batch.images[:, 0] * 255 / 10).round()
        near = (red - batch.targets.float()).abs() < 0.6
        # resizing blurs the columns between two stripes
        assert near.float().mean() > (0.7 if cache == "none" else 0.999)
        for row, full in zip(batch.indices.tolist(), batch.full, strict=True):
            assert np.array_equal(full.numpy(), targets.full(source.splits["train"], row))
    again = list(loader.epoch(0))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(batches, again, strict=True))


def test_masks_are_numbered_as_the_model_numbers_them(tmp_path: Path) -> None:
    source = opened(write(tmp_path))
    assert source.masks is not None
    targets = MaskTargets(source.masks).matched(["class 2", "other", "class 0", "class 1"])
    assert np.array_equal(targets.full(source.splits["train"], 0), np.array([2, 3, 0], np.uint8)[mask_of(0)])
    with pytest.raises(DataError, match="does not know"):
        MaskTargets(source.masks).matched(["class 0"])
    with pytest.raises(ConfigError, match="MixUp"):
        targets.mix(torch.zeros(1), share=0.5)
