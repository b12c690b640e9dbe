"""Suggestions of images to label first, by coverage of the embedding, then uncertainty too.

Without labels the images count alike. Once two classes have labels, a linear probe of the same features is
fitted to them, and each image counts by how uncertain it is: one minus the margin between its two likeliest
classes. Images that have labels already count as chosen.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError, UsageError
from tesela.core.files import write_text
from tesela.core.pathnames import path_text
from tesela.core.progress import progress_bar
from tesela.data.loader import Loader
from tesela.data.open import find_source
from tesela.data.source import Items
from tesela.data.sources.folder import FileItems
from tesela.data.sources.manifest import located, manifest_rows
from tesela.evaluation.model import open_representing
from tesela.evaluation.probe import linear_probe
from tesela.evaluation.readers import features_of
from tesela.evaluation.scoring import evaluation_mode
from tesela.hardware.device import choose_device
from tesela.imaging.spec import ImageSpec
from tesela.metrics.coverage import Coverage
from tesela.metrics.few_shot import standardisation
from tesela.metrics.probability import softmax
from tesela.runtime.sources import find_images

if TYPE_CHECKING:
    from rich.console import Console

#: Without a model images are compared as squares of so many pixels a side.
COPY_SIDE = 8
HEADING = ("path", "label", "suggested")


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestions:
    """Images to label, in the order in which to label them.

    Attributes:
        labelled: number of images with labels.
        suggested: names of the images to label.
        uncertain: whether uncertainty counted.
        coverage: mean similarity of all images to the most similar labelled or suggested one, 0 to 1.
        unreadable: images that were left out.
        out: the manifest.
    """

    labelled: int
    suggested: list[str]
    uncertain: bool
    coverage: float
    unreadable: list[dict[str, str]]
    out: Path


def suggest_labels(
    data: str,
    *,
    out: Path,
    count: int,
    source: str | None = None,
    labels: Path | None = None,
    batch_size: int = 256,
    device: str = "auto",
    console: Console | None = None,
) -> Suggestions:
    """Choose images to label and write them to a manifest, below those that have labels.

    Args:
        data: a folder of images, nested as it may be, or any data set, whose labels are not looked at.
        out: the .csv file to write, with the columns path, label (empty) and suggested (1, 2, ...).
        count: how many to suggest.
        source: a run, a bundle or a checkpoint whose features tell images apart; small copies of the images
            do without one.
        labels: a manifest that was written before, with labels filled in; may be ``out``.
        batch_size: images at a time.
        device: cpu, cuda, mps or auto.
        console: where a progress bar goes.

    Raises:
        UsageError: nothing is there, another ending than .csv, ``out`` is there and would be lost.
        DataError: nothing is left to label, or a label is of no image of the data.
    """
    if count < 1:
        raise UsageError(f"count must be 1 or more, not {count}", hint="20 is a beginning")
    if out.suffix.lower() != ".csv":
        raise UsageError(f"suggestions are written as CSV, not as {out.name}", hint="end the name in .csv")
    if out.exists() and (labels is None or out.resolve() != labels.resolve()):
        raise UsageError(
            f"{out} is there already and may hold labels",
            hint=f"take them along: tesela label suggest {data} --labels {out}; or write another file",
        )
    items = unlabelled_items(data)
    places = _places(items, out.resolve().parent)
    known = labels_in(labels, items) if labels is not None else {}
    rows, features, unreadable = _embedded(items, source, batch_size, device, console)
    taken = np.array([place for place, row in enumerate(rows) if int(row) in known], np.int64)
    free = np.setdiff1d(np.arange(len(rows)), taken)
    if not len(free):
        raise DataError(f"no image of {data} is left to label", hint="train on them: tesela train LABELS.csv")
    weights = uncertainties(features, taken, [known[int(rows[place])] for place in taken])
    coverage = Coverage(features, weights)
    coverage.cover(taken)
    chosen = rows[coverage.choose(free, count)]
    _write(out, places, known, chosen)
    plain = Coverage(features)
    plain.cover(np.flatnonzero(np.isin(rows, [*known, *chosen.tolist()])))
    return Suggestions(
        labelled=len(known),
        suggested=[places[row] for row in chosen],
        uncertain=weights is not None,
        coverage=plain.share(),
        unreadable=unreadable,
        out=out,
    )


def unlabelled_items(data: str) -> Items:
    """All images of a folder, or the training images of another data set.

    Raises:
        UsageError: nothing is there.
        DataError: it holds no image.
    """
    folder = Path(data).expanduser()
    if not folder.is_dir():
        return find_source(data).splits["train"]
    try:
        images = find_images([folder])
    except DataError:
        return find_source(data).splits["train"]  # files that hold many images
    return FileItems(folder, [str(image.relative_to(folder)) for image in images], [0] * len(images))


def labels_in(manifest: Path, items: Items) -> dict[int, str]:
    """Labels by the numbers of images; rows without a label are no labels yet.

    Raises:
        UsageError: there is no such file.
        DataError: it is no manifest, a row is of no image of the data, or an image has two labels.
    """
    if not manifest.is_file():
        raise UsageError(f"there is no manifest {manifest}", hint="give the file that was written before")
    here = manifest.resolve().parent
    numbers = {place: number for number, place in enumerate(_keys(items))}
    found: dict[int, str] = {}
    for row in manifest_rows(manifest):
        if row.label is None:
            continue
        number = numbers.get(row.path, numbers.get(os.path.realpath(here / located(here, row.path))))
        if number is None:
            raise DataError(
                f"{manifest}: row {row.number} names {row.path}, which is no image of the data",
                hint="name the data that the manifest was made of",
            )
        if found.setdefault(number, row.label) != row.label:
            raise DataError(
                f"{manifest}: {row.path} is labelled {found[number]!r} and {row.label!r}",
                hint="leave one of the rows",
            )
    return found


def uncertainties(
    features: NDArray[np.float32], labelled: NDArray[np.int64], labels: Sequence[str]
) -> NDArray[np.float64] | None:
    """(N,) one minus the margin of a linear probe's two likeliest classes.

    None where fewer than two classes have labels.

    Args:
        features: (N, D).
        labelled: rows that have labels.
        labels: of these.
    """
    names = sorted(set(labels))
    if len(names) < 2:
        return None
    mean, std = standardisation(features[labelled])
    targets = np.array([names.index(label) for label in labels], np.int64)
    weights, bias = linear_probe((features[labelled] - mean) / std, targets, classes=len(names))
    ranked = np.sort(softmax(((features - mean) / std) @ weights + bias), axis=1)
    margins: NDArray[np.float64] = 1 - (ranked[:, -1] - ranked[:, -2])
    return margins


def _embedded(
    items: Items, source: str | None, batch_size: int, device: str, console: Console | None
) -> tuple[NDArray[np.int64], NDArray[np.float32], list[dict[str, str]]]:
    """Numbers (N,) and features (N, D) of the images that can be read, and the others."""
    model, spec = None, _thumbnail(getattr(items, "channels", 3))
    if source is not None:
        model, info = open_representing(source, device=choose_device(device).type)
        spec = info.image
    loader = Loader(items, spec, batch_size=batch_size, max_unreadable=1.0)
    rows, features = [], []
    with progress_bar(console, "look", len(loader)) as bar:
        if model is None:
            for batch in loader.epoch(0):
                rows.append(batch.indices.numpy())
                features.append(batch.images.flatten(1).numpy())
                bar.advance()
        else:
            with evaluation_mode(model, None):
                for found, numbers in features_of(model, loader, "fp32"):
                    rows.append(numbers)
                    features.append(found)
                    bar.advance()
    loader.close()
    unreadable = [{"name": bad.name, "code": bad.code, "message": bad.message} for bad in loader.unreadable]
    return np.concatenate(rows), np.concatenate(features), unreadable


def _thumbnail(channels: int) -> ImageSpec:
    half = (0.5,) * channels
    return ImageSpec(height=COPY_SIDE, width=COPY_SIDE, channels=channels, mean=half, std=half)


def _keys(items: Items) -> list[str]:
    """The real path of each image, or its name where it is no file of its own."""
    if isinstance(items, FileItems):
        return [os.path.realpath(items.root / path) for path in items.paths]
    return [items.name(number) for number in range(len(items))]


def _places(items: Items, folder: Path) -> list[str]:
    """The name of each image in a manifest that lies in ``folder``."""
    if isinstance(items, FileItems):
        return [path_text(Path(os.path.relpath(items.root / path, folder))) for path in items.paths]
    names = [items.name(number) for number in range(len(items))]
    files: Any = getattr(items, "files", None)
    root = getattr(items, "folder", None) or getattr(items, "root", None) or (files and files[0].parent)
    if root is None:
        return names
    return [path_text(Path(os.path.relpath(Path(root) / name, folder))) for name in names]


def _write(out: Path, places: list[str], known: dict[int, str], chosen: NDArray[np.int64]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADING)
    writer.writerows([places[row], label, ""] for row, label in sorted(known.items()))
    writer.writerows([places[row], "", rank] for rank, row in enumerate(chosen.tolist(), 1))
    write_text(out, text.getvalue())
