"""Recognition of what tesela itself wrote, by its content: none of it is data.

Run folders, bundles, predictions with overlays, inspections; and, file by file, the pictures of explanations,
which may lie among photographs.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from tesela.imaging.suffixes import IMAGE_SUFFIXES

_FIGURE, _ARRAYS = ".figure.png", ".npz"


def is_written(folder: Path, files: Collection[str], folders: Collection[str]) -> bool:
    """Whether a folder is one that a verb wrote.

    Args:
        folder: where it is.
        files: names of the files in it.
        folders: names of the folders in it.
    """
    if "config.yaml" in files and ({"choices.json", "metrics.jsonl"} & {*files} or "checkpoints" in folders):
        return True
    if "config.json" in files and "tesela-bundle/" in _beginning(folder / "config.json"):
        return True
    if {"inspect.html", "inspect.npz"} <= {*files}:
        return True
    return "results.jsonl" in files and _is_result(_beginning(folder / "results.jsonl"))


def written_pictures(folder: Path, files: Collection[str]) -> set[str]:
    """Those of the files of one folder that are pictures of explanations, beside arrays that say so.

    All of a folder that holds nothing else; among photographs those that are named after a class.
    """
    images = {name.removesuffix(_FIGURE) for name in files if name.endswith(_FIGURE)}
    if not images:
        return set()
    pictures, stems = {f"{image}{_FIGURE}" for image in images}, set()
    for array in (name.removesuffix(_ARRAYS) for name in files if name.endswith(_ARRAYS)):
        image = next((start for start in _beginnings(array) if start in images), None)
        classes = _classes(folder / f"{array}{_ARRAYS}") if image is not None else []
        pictures |= {f"{array}.{name}.png" for name in classes}
        stems |= {image} if classes else set()
    pictures = {name for name in pictures.intersection(files) if stems.intersection(_beginnings(name))}
    all_images = {name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    rest = all_images - pictures
    return all_images if all(stems.intersection(_beginnings(name)[:-2]) for name in rest) else pictures


def _beginnings(name: str) -> list[str]:
    """The name up to each of its dots, and the whole."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _classes(file: Path) -> list[str]:
    """What pictures are called after that belong to the arrays of an explanation."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if not {"map", "tokens", "labels", "targets"} <= set(arrays.files):
                return []
            return [*map(str, arrays["labels"]), *(f"class{number}" for number in arrays["targets"])]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return []


def _beginning(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def _is_result(text: str) -> bool:
    """Whether the first line is a result of ``predict``."""
    try:
        row = json.loads(text.partition("\n")[0])
    except ValueError:
        return False
    return isinstance(row, dict) and "image" in row and bool({"areas", "error"} & {*row})
