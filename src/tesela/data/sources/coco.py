"""COCO's JSON: polygons and run lengths of each image, drawn into masks of categories.

A folder with ``annotations/instances_SPLIT.json`` and the images of each split in a folder of its name (or
in ``images/SPLIT``), with ``SPLIT/_annotations.coco.json`` beside the images, or one such file by itself.
Value 0 is the background, the categories follow in the order of their numbers. Smaller objects lie on top;
crowds belong to no class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from tesela.core.errors import DataError, ImageError
from tesela.data.masks.coding import MaskCoding, palette
from tesela.data.source import Source
from tesela.data.sources.folder import FileItems
from tesela.data.sources.layout.split_names import refuse_doubles, splits_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

BESIDE = "_annotations.coco.json"
MOST_CATEGORIES = 254
#: Value that a stored mask has at a crowd.
CROWD = 255


class CocoItems(FileItems):
    """Images with shapes.

    Args:
        root: of all paths.
        paths: of the images.
        sizes: (height, width) of each, as the JSON says.
        shapes: of each image, in the order of drawing: value, and polygons or run lengths.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        shapes: Sequence[Sequence[tuple[int, Any]]],
    ) -> None:
        super().__init__(root, paths, [0] * len(paths))
        self.sizes, self.shapes = sizes, shapes

    def mask(self, index: int) -> NDArray[np.uint8]:
        """As HasMasks.mask."""
        height, width = self.sizes[index]
        picture = Image.new("L", (width, height), 0)
        for value, shape in self.shapes[index]:
            if isinstance(shape, Mapping):
                inside = run_lengths(shape, self.paths[index])
                picture = Image.fromarray(np.where(inside, value, np.asarray(picture)).astype(np.uint8))
                continue
            pen = ImageDraw.Draw(picture)
            for polygon in shape:
                corners = zip(polygon[::2], polygon[1::2], strict=True)
                if len(polygon) >= 6:
                    pen.polygon([(x - 0.5, y - 0.5) for x, y in corners], value)
        return np.array(picture)

    def mask_name(self, index: int) -> str:
        """The image's own name."""
        return self.name(index)

    def mask_colours(self, index: int) -> list[tuple[int, int, int]]:
        """None: shapes have no colours."""
        del index
        return []


def find_coco(text: str | Path) -> Source | None:
    """The images and shapes of a COCO data set; None for anything else.

    Raises:
        DataError: a file is damaged, or images are missing.
    """
    path = Path(text).expanduser()
    found = _files(path)
    if not found:
        return None
    root = path if path.is_dir() else path.parent
    names: list[str] | None = None
    splits: dict[str, CocoItems] = {}
    for split, (file, folder) in found.items():
        items, own = _items(root, file, folder)
        if names is not None and own != names:
            raise DataError(
                f"{file} has other categories than the files of other splits",
                hint="write the same categories into every file",
            )
        names, splits[split] = own, items
    assert names is not None
    labels = ("background", *names)
    coding = MaskCoding(
        names=labels,
        values=tuple(range(len(labels))),
        colours=((32, 32, 36), *palette(len(labels) - 1)),
        ignored=(CROWD,),
    )
    return Source(name=root.resolve().name, kind="coco", labels=coding.names, splits=splits, masks=coding)


def _files(path: Path) -> dict[str, tuple[Path, Path]]:
    """The JSON file of each split and the folder of its images."""
    if path.is_file():
        is_coco = path.suffix.lower() == ".json" and _is_coco(path)
        return {"train": (path, path.parent)} if is_coco else {}
    if not path.is_dir():
        return {}
    found: dict[str, tuple[Path, Path]] = {}
    beside = [child.name for child in sorted(path.iterdir()) if (child / BESIDE).is_file()]
    splits = splits_of(beside)
    refuse_doubles(splits, path)
    for name, split in splits.items():
        found[split] = path / name / BESIDE, path / name
    if found:
        return found if "train" in found else {}
    if (path / BESIDE).is_file():
        return {"train": (path / BESIDE, path)}
    files = {
        file.stem.removeprefix("instances_"): file
        for file in sorted((path / "annotations").glob("instances_*.json"))
    }
    for word, split in splits_of(files).items():
        places = [path / word, path / "images" / word, path / "images", path]
        found[split] = files[word], next(place for place in places if place.is_dir())
    return found if "train" in found else {}


def _is_coco(file: Path) -> bool:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and {"images", "annotations", "categories"} <= set(tree)


def _items(root: Path, file: Path, folder: Path) -> tuple[CocoItems, list[str]]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        categories = sorted(tree["categories"], key=lambda one: one["id"])
        names = [str(one["name"]) for one in categories]
        values = {one["id"]: place for place, one in enumerate(categories, 1)}
        images = sorted(tree["images"], key=lambda one: str(one["file_name"]))
        shapes: dict[Any, list[tuple[float, int, Any]]] = {image["id"]: [] for image in images}
        for one in tree["annotations"]:
            if one.get("segmentation") and one["image_id"] in shapes:
                value = CROWD if one.get("iscrowd") else values[one["category_id"]]
                shapes[one["image_id"]].append((float(one.get("area", 0.0)), value, one["segmentation"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is no COCO file: {error!r}", hint="export it again from its program"
        ) from error
    if len(names) > MOST_CATEGORIES:
        raise DataError(f"{file} has {len(names)} categories", hint=f"{MOST_CATEGORIES} fit into a mask")
    missing = [image["file_name"] for image in images if not (folder / image["file_name"]).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        named = ", ".join(missing[:3]) + more
        raise DataError(
            f"{len(missing)} images that {file.name} names are not in {folder}: {named}",
            hint="put them there, or take them out of the file",
        )
    ordered = [
        [(value, shape) for _, value, shape in sorted(shapes[image["id"]], key=lambda one: -one[0])]
        for image in images
    ]
    paths = [(folder / image["file_name"]).relative_to(root).as_posix() for image in images]
    sizes = [(int(image["height"]), int(image["width"])) for image in images]
    return CocoItems(root, paths, sizes, ordered), names


def run_lengths(shape: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO's run lengths, as a list of counts or in its compressed text form.

    Args:
        shape: ``counts`` and ``size``; runs of zeros and ones in turn, down the columns.
        name: of the image, for the error.

    Raises:
        ImageError: the runs do not fill the image.
    """
    height, width = shape["size"]
    counts = shape["counts"]
    runs = counts if isinstance(counts, list) else _decompressed(str(counts))
    if sum(runs) != height * width:
        raise ImageError(
            f"run lengths of {name} do not fill its {height}x{width} pixels",
            code="corrupt",
            hint="export the annotations again",
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """Counts from the text form: 5 bits a character, the lowest first, differences to the last but one."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
            if not more and bits & 0x10:
                value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
