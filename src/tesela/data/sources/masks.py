"""Images with masks: a folder of each, with or without splits, paired by the stem.

Layouts: ``images/`` and ``masks/`` (or ADE20K's ``annotations/``, Cityscapes' ``leftImg8bit/`` and
``gtFine/``, and other usual names), also below ``train/``, ``val/`` and ``test/`` or with these below them;
CamVid's ``train/`` and ``trainannot/``; Oxford-IIIT Pet's ``annotations/trimaps`` with its lists.

Odd: a split without a single mask is left out, since nothing can be measured on it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.masks.classes_file import read_classes
from tesela.data.masks.items import MaskedFiles
from tesela.data.masks.known import known_coding
from tesela.data.source import Source
from tesela.data.sources.layout.split_names import refuse_doubles, splits_of
from tesela.imaging.suffixes import IMAGE_SUFFIXES

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "pictures")
_MASKS = (
    *("masks", "mask", "annotations", "annotation", "labels", "label", "segmentationclass"),
    *("gtfine", "gt", "ground_truth", "segmentation", "segmentations"),
)
#: Endings of stems that programs add to one of the two files.
_ENDINGS = re.compile(
    r"(_leftImg8bit|_gtFine_labelTrainIds|_gtFine_labelIds|_sat|_image|_img|_masks?|_labels?|_gt|_seg"
    r"|_segmentation|_L)$"
)
#: Further files of Cityscapes beside each mask.
_OTHERS = re.compile(r"_(color|instanceIds|polygons|instanceTrainIds)$")
_NAMED = 10

Pairs = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Two folders that belong together: one of images, one of masks."""

    images: Path
    masks: Path


def find_masks(text: str | Path) -> Source | None:
    """The images and masks of a folder; None where it has no such pair of folders.

    Raises:
        DataError: images without a mask, or two files of one stem.
    """
    root = Path(text).expanduser()
    if not root.is_dir():
        return None
    found = pairs_of(root)
    if found is None:
        return None
    pairs, left_out = found
    splits = {split: MaskedFiles(root, rows) for split, rows in pairs.items()}
    coding = read_classes(root) or known_coding(root, [mask for rows in pairs.values() for _, mask in rows])
    return Source(
        name=path_text(root.resolve().name),
        kind="masks",
        labels=coding.names if coding is not None else (),
        splits=splits,
        masks=coding,
        ignored=tuple(map(path_text, left_out)),
    )


def pairs_of(root: Path) -> tuple[Pairs, list[str]] | None:
    """Image and mask paths below ``root`` by split, and the files left out; None where there are no masks.

    Raises:
        DataError: images without a mask, or two files of one stem.
    """
    layouts = _layouts(root)
    if not layouts:
        return None
    pairs: Pairs = {}
    left_out: list[str] = []
    for split, layout in layouts.items():
        images, masks = _by_stem(root, layout.images), _by_stem(root, layout.masks)
        if not masks and not any(_files(layout.masks)):
            left_out += images.values()
            continue
        if not set(images) & set(masks) and len(layouts) == 1 and split == "train":
            return None
        missing = [images[stem] for stem in images if stem not in masks]
        if len(missing) == len(images):
            left_out += missing
            continue
        if missing:
            raise _missing(missing, len(images), layout.masks)
        left_out += [masks[stem] for stem in masks if stem not in images]
        pairs[split] = [(images[stem], masks[stem]) for stem in sorted(images)]
    if not pairs:
        return None
    return _by_lists(root, pairs), left_out


def _layouts(root: Path) -> dict[str, Layout]:
    """The two folders of each split; of ``train`` where there are no splits."""
    children = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir()}
    whole = _together(children)
    if whole is not None:
        nested = {
            split: Layout(images=whole.images / name, masks=whole.masks / name)
            for split, name in _splits(whole.images).items()
            if (whole.masks / name).is_dir()
        }
        return nested if "train" in nested else {"train": whole}
    found: dict[str, Layout] = {}
    doubles: dict[str, str] = {}
    for name, split in splits_of(children).items():
        child = children[name]
        inside = _together({one.name.lower(): one for one in sorted(child.iterdir()) if one.is_dir()})
        if inside is None and f"{name}annot" in children:
            inside = Layout(images=child, masks=children[f"{name}annot"])
        if inside is not None:
            found[split], doubles[name] = inside, split
    refuse_doubles(doubles, root)
    return found if "train" in found else {}


def _together(children: Mapping[str, Path]) -> Layout | None:
    images = next((children[name] for name in _IMAGES if name in children), None)
    masks = next((children[name] for name in _MASKS if name in children), None)
    if images is None or masks is None:
        return None
    trimaps = masks / "trimaps"
    return Layout(images=images, masks=trimaps if trimaps.is_dir() else masks)


def _splits(folder: Path) -> dict[str, str]:
    names = sorted(child.name for child in folder.iterdir() if child.is_dir())
    splits = splits_of(names)
    refuse_doubles(splits, folder)
    return {split: name for name, split in splits.items()}


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(place, name)


def _by_stem(root: Path, folder: Path) -> dict[str, str]:
    """Path below ``root`` of each file, by the part of its path and stem that both folders share."""
    found: dict[str, str] = {}
    for path in _files(folder):
        if _OTHERS.search(path.stem):
            continue
        stem = (path.parent.relative_to(folder) / _ENDINGS.sub("", path.stem)).as_posix()
        name = path.relative_to(root).as_posix()
        if stem in found:
            kept = _preferred(found[stem], name)
            if kept is None:
                raise DataError(
                    f"{found[stem]} and {name} have one stem, so it is not known which belongs to which",
                    hint="give each image and its mask a stem of their own",
                )
            name = kept
        found[stem] = name
    return found


def _preferred(first: str, second: str) -> str | None:
    """Of Cityscapes' two numberings the one for training."""
    return next((name for name in (first, second) if "labelTrainIds" in name), None)


def _missing(missing: list[str], total: int, folder: Path) -> DataError:
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    named = ", ".join(missing[:_NAMED]) + more
    return DataError(
        f"{len(missing)} of {total} images have no mask in {folder.name}: {named}",
        hint=f"put {Path(missing[0]).stem}.png into {folder}, or take the image away",
    )


def _by_lists(root: Path, pairs: Pairs) -> Pairs:
    """Oxford-IIIT Pet's own splits, from ``annotations/trainval.txt`` and ``test.txt``."""
    lists = root / "annotations" / "trainval.txt", root / "annotations" / "test.txt"
    if set(pairs) != {"train"} or not all(file.is_file() for file in lists):
        return pairs
    train, test = (
        {line.split()[0] for line in file.read_text().splitlines() if line.strip() and line[0] != "#"}
        for file in lists
    )
    rows = pairs["train"]
    return {
        "train": [row for row in rows if Path(row[0]).stem in train],
        "test": [row for row in rows if Path(row[0]).stem in test],
    }
