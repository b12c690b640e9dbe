"""Codings of public data sets: Oxford-IIIT Pet, Cityscapes, ADE20K, known by their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tesela.data.masks.coding import Colour, MaskCoding, palette

_CITYSCAPES: tuple[tuple[int, str, Colour], ...] = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)), (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)), (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)), (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)), (33, "bicycle", (119, 11, 32)),
)  # fmt: skip

#: The same classes under the names of CamVid.
_STREET: dict[str, Colour] = {
    "pavement": (244, 35, 232), "tree": (107, 142, 35), "sign": (220, 220, 0), "pedestrian": (220, 20, 60),
    "bicyclist": (255, 120, 0),
}  # fmt: skip


def usual_colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Colours of classes by their names: those of street scenes where all are of such, else a palette."""
    street = {name: colour for _, name, colour in _CITYSCAPES} | _STREET
    found = [street.get(name.lower()) for name in names]
    if any(colour is None for colour in found) or len(set(found)) < len(found):
        return palette(len(names))
    return tuple(colour for colour in found if colour is not None)


def known_coding(root: Path, masks: Sequence[str]) -> MaskCoding | None:
    """The coding of a data set that is recognised; None of any other.

    Args:
        root: its folder.
        masks: paths of its masks.
    """
    if masks and all("gtFine_label" in name for name in masks):
        return _cityscapes(trained="labelTrainIds" in masks[0])
    if (root / "annotations" / "trimaps").is_dir():
        colours: tuple[Colour, ...] = ((214, 120, 40), (110, 110, 118), (222, 188, 60))
        return MaskCoding(names=("pet", "background", "border"), values=(1, 2, 3), colours=colours)
    return _ade20k(root / "objectInfo150.txt")


def _cityscapes(*, trained: bool) -> MaskCoding:
    """19 classes, numbered for training or as they are first published, everything else ignored."""
    values = tuple(range(len(_CITYSCAPES))) if trained else tuple(value for value, _, _ in _CITYSCAPES)
    others = (255,) if trained else tuple(value for value in range(256) if value not in values)
    return MaskCoding(
        names=tuple(name for _, name, _ in _CITYSCAPES),
        values=values,
        colours=tuple(colour for _, _, colour in _CITYSCAPES),
        ignored=others,
    )


def _ade20k(file: Path) -> MaskCoding | None:
    """150 classes from 1 on, with the first of each one's names; 0 is ignored."""
    if not file.is_file():
        return None
    names: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        name = line.split("\t")[-1].split(",")[0].strip()
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return MaskCoding(
        names=tuple(names),
        values=tuple(range(1, len(names) + 1)),
        colours=palette(len(names)),
        ignored=(0, 255) if len(names) < 255 else (0,),
    )
