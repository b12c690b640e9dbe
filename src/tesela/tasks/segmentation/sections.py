"""A segmenter's part of the report: classes, overlays, worst images.

A section without its material is empty and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tesela.core.format import percent
from tesela.imaging.overlay import overlaid
from tesela.imaging.png import encode_png
from tesela.page.charts.confusion import confusion_chart
from tesela.page.document import data_table, data_uri, render
from tesela.page.section import Section
from tesela.runs.folder import Run
from tesela.tasks.material import Material

MOST_DRAWN = 40
SAMPLES = 12
SCORE_COLUMNS = (
    ("", "swatch"),
    ("class", "name"),
    ("IoU", "n"),
    ("", "meter"),
    ("Dice", "n"),
    ("boundary", "n"),
    ("of the pixels", "n"),
)
TEMPLATE = "tesela.tasks.segmentation/masks.html.j2"


def mask_lead(scores: Mapping[str, Any]) -> str:
    """One sentence on what was reached."""
    share = percent(scores["pixel_accuracy"], 1)
    return f"{share} of the pixels of {scores['images']:,} {scores['split']} images are labelled right."


def mask_tiles(scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The numbers that matter: name, value and note."""
    yield "Mean IoU", percent(scores["mean_iou"], 1), f"mean of {len(scores['labels'])} classes"
    yield "Pixel accuracy", percent(scores["pixel_accuracy"], 1), "ignored pixels left out"
    yield "Mean Dice", percent(scores["dice"], 1), ""
    if scores.get("boundary_iou") is not None:
        yield "Boundary IoU", percent(scores["boundary_iou"], 1), "within 2 % of the diagonal"
    if scores.get("block_artefacts") is not None:
        yield "Block artefacts", f"{scores['block_artefacts']:.2f}", "at patch borders; 1 is none"
    yield "Parameters", f"{scores['parameters']:,}", f"{len(scores['labels'])} classes"


def mask_sections(material: Material) -> list[Section]:
    """The sections, in the order of the report."""
    return [
        mask_classes(material),
        Section(
            title="Predictions",
            note="A fixed sample: the image, the true mask, the predicted one. Ignored pixels stay bare.",
            body=_rows(material, "sample", most=SAMPLES),
        ),
        Section(
            title="Worst images",
            note="The lowest mean IoU first.",
            body=_rows(material, "worst", most=SAMPLES),
        ),
        Section(
            title="Explanations",
            note="Bright: the patches on which the class with the most pixels rests in each image.",
            body=_explanations(material),
        ),
        Section(
            title="Over the epochs",
            note="Predicted masks of the same validation images after each epoch.",
            body=_animation(material.path),
        ),
    ]


def mask_classes(material: Material) -> Section:
    """The scores of each class, worst first, beside the confusion of pixels."""
    scores = material.scores
    if not scores:
        return Section(title="Classes")
    names = scores["labels"]
    colours = _colours(scores)
    ordered = sorted(scores["per_class"], key=lambda row: (row["iou"] is None, row["iou"] or 0.0))
    rows = [
        (
            "#{:02x}{:02x}{:02x}".format(*colours[names.index(row["label"])]),
            row["label"],
            _share(row["iou"]),
            f"{(row['iou'] or 0) * 100:.1f}%",
            _share(row["dice"]),
            _share(row["boundary_iou"]),
            percent(row["share"], 1),
        )
        for row in ordered
    ]
    drawn = len(names) <= MOST_DRAWN and scores.get("confusion")
    return Section(
        title="Classes",
        note="The worst first. In the matrix a row is a true class, a column a prediction, in thousands of "
        "pixels; the shade is a share of the row."
        if drawn
        else "The worst first.",
        body=render(
            "tesela.tasks.segmentation/classes.html.j2",
            table=data_table(SCORE_COLUMNS, rows),
            matrix=confusion_chart(_thousands(scores["confusion"]), names) if drawn else "",
        ),
    )


def _thousands(confusion: list[list[int]]) -> list[list[int]]:
    return [[round(value / 1000) for value in row] for row in confusion]


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value, 1)


def _colours(scores: Mapping[str, Any]) -> tuple[tuple[int, int, int], ...]:
    from tesela.data.masks.classes_file import parse_colour
    from tesela.data.masks.coding import palette

    listed = scores.get("colors") or []
    count = len(scores["labels"])
    return tuple(map(parse_colour, listed)) if len(listed) == count else palette(count)


def _rows(material: Material, name: str, *, most: int) -> str:
    """Image, truth and prediction of each picture of a set."""
    pictures = list(_pictures(material, name, most))
    if not pictures:
        return ""
    colours = _colours(material.scores)
    legend = [
        ("#{:02x}{:02x}{:02x}".format(*colour), label)
        for colour, label in zip(colours, material.scores["labels"], strict=True)
    ]
    return render(TEMPLATE, pictures=pictures, legend=legend)


def _pictures(material: Material, name: str, most: int) -> Iterator[dict[str, Any]]:
    arrays = material.arrays
    if name not in arrays or "truth" not in arrays:
        return
    colours = _colours(material.scores)
    entries = zip(arrays[f"{name}_images"], arrays[name], arrays[f"{name}_names"], strict=False)
    for image, place, title in list(entries)[:most]:
        size = arrays["truth"].shape[1:]
        base = _enlarged(np.asarray(image), (size[0], size[1]))
        iou = float(arrays["iou"][place])
        yield {
            "image": encode_png(base),
            "truth": encode_png(overlaid(base, arrays["truth"][place], colours)),
            "predicted": encode_png(overlaid(base, arrays["predicted"][place], colours)),
            "name": str(title),
            "iou": "–" if np.isnan(iou) else percent(iou, 0),
        }


def _enlarged(image: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """A thumbnail (h, w, C) at the masks' size, in colour."""
    from tesela.imaging.preprocess import resize_box

    height, width = image.shape[:2]
    base = resize_box(image, (0.0, 0.0, float(height), float(width)), size, interpolation="bilinear")
    return np.repeat(base, 3, axis=2) if base.shape[2] == 1 else base


def _explanations(material: Material) -> str:
    names = material.arrays.get("shown_names", ())
    pictures = [
        {"png": png, "name": str(name)} for png, name in zip(material.explanations, names, strict=False)
    ]
    return render("tesela.tasks.segmentation/explained.html.j2", pictures=pictures) if pictures else ""


def _animation(run: Path) -> str:
    file = Run(run).animation
    if not file.is_file():
        return ""
    return render("tesela.tasks.segmentation/animation.html.j2", gif=data_uri(file.read_bytes(), "gif"))
