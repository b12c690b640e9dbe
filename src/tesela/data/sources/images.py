"""Images without labels: every image below a folder, however it is nested.

Folders that are named as splits stay splits where one is the train split, with whatever else there is put
into train. Odd: folders that are named for masks or annotations hold no photographs and are left aside; so
are, beside class folders, those of other splits and those that programs write.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tesela.core.pathnames import path_text
from tesela.data.source import Items, Source
from tesela.data.sources.folder import FileItems
from tesela.data.sources.layout.layout import OUTPUTS
from tesela.data.sources.layout.split_names import refuse_doubles, split_word, splits_of
from tesela.data.sources.layout.tree import scan_folder

#: Stands for the class of an image without one.
NO_CLASS = -1
_NO_IMAGES = frozenset(("mask", "masks", "annotation", "annotations", "trimaps", "labels"))
_UNLABELLED = frozenset(("unlabeled", "unlabelled", "unsup", "unsupervised"))


def open_images(root: Path) -> Source | None:
    """All images below ``root`` as a source without labels; None where there are none for training."""
    tree = scan_folder(root)
    top = tree.top
    while not top.images and len(top.filled) == 1:
        top = top.filled[0]
    aside = [one for one in top.filled if one.name.lower() in _NO_IMAGES]
    folders = [one for one in top.filled if one not in aside]
    named = splits_of(one.name for one in folders)
    if "train" not in named.values():
        named = {}
    refuse_doubles(named, root / top.path)
    found: dict[str, list[str]] = {"train": [top.below(name) for name in top.images]}
    for folder in folders:
        found.setdefault(named.get(folder.name, "train"), []).extend(folder.image_paths())
    if not found["train"]:
        return None
    notes: tuple[str, ...] = ("no labels: every image below the folder is used, in whatever folder it lies",)
    if aside:
        listed = ", ".join(path_text(one.path) for one in aside)
        notes += (f"left aside, as they are named for masks or annotations: {listed}",)
    return Source(
        name=path_text(root.resolve().name),
        kind="images",
        labels=(),
        splits={split: _unlabelled(root, sorted(paths)) for split, paths in found.items()},
        notes=notes,
    )


def with_unlabelled(source: Source, root: Path) -> Source:
    """A source of class folders whose train split has the images beside these too, without a class."""
    train: Items = source.splits["train"]
    if not isinstance(train, FileItems):
        return source
    used = {path for items in source.splits.values() for path in getattr(items, "paths", ())}
    paths = [path for path in scan_folder(root).top.image_paths() if path not in used and _is_more(path)]
    if not paths:
        return source
    targets = np.concatenate((train.targets, np.full(len(paths), NO_CLASS)))
    whole = FileItems(root, (*train.paths, *paths), targets, channels=train.channels)
    note = f"images without a class are used too ({len(paths)}), such as {path_text(paths[0])}"
    splits = {**source.splits, "train": whole}
    return replace(source, splits=splits, notes=(*source.notes, note))


def _is_more(path: str) -> bool:
    """Whether an image that has no class may be learned from, by the folders that it lies in."""
    words = [word.lower() for word in path.split("/")[:-1]]
    held_out = any(split_word(word) in ("val", "test", "eval") for word in words)
    return not held_out and not any(word in _NO_IMAGES | OUTPUTS - _UNLABELLED for word in words)


def names_no_classes(source: Source) -> bool:
    """Whether the folders of a source say no classes: there is one, or they are named as splits."""
    return source.kind == "folder" and (
        len(source.labels) < 2 or "train" in splits_of(source.labels).values()
    )


def _unlabelled(root: Path, paths: list[str]) -> FileItems:
    return FileItems(root, paths, [NO_CLASS] * len(paths))
