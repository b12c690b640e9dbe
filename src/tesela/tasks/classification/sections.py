"""A classifier's part of the report: classes, predictions, mistakes, calibration.

A section without its material is empty and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.core.format import percent
from tesela.imaging.png import encode_png
from tesela.page.charts.confusion import confusion_chart
from tesela.page.charts.figure import charts_row
from tesela.page.charts.reliability import reliability_chart
from tesela.page.document import data_table, render
from tesela.page.section import Section
from tesela.tasks.material import Material

MOST_CLASSES_DRAWN = 60
CLASSES_SHOWN, PAIRS_SHOWN = 20, 6
SMALL_IMAGE = 48
"""Thumbnails below this side are enlarged without blurring."""
CLASS_COLUMNS = (
    ("class", "name"),
    ("F1", "n"),
    ("", "meter"),
    ("recall", "n"),
    ("precision", "n"),
    ("images", "n"),
)


def sections(material: Material) -> list[Section]:
    """The sections, in the order of the report."""
    return [
        classes(material),
        Section(
            title="Predictions",
            note="A fixed sample, true/predicted; ✗ marks mistakes.",
            body=_pictures(material, "sample", kind="samples"),
        ),
        Section(title="Most confident mistakes", body=_pictures(material, "mistakes", kind="mistakes")),
        Section(
            title="Explanations",
            note="Yellow: the parts that the prediction rests on, as far as attention and gradients show.",
            body=_pictures(material, "shown", kind="shown", files=material.explanations),
        ),
        calibration(material),
    ]


def lead(scores: Mapping[str, Any]) -> str:
    """One sentence on what was reached."""
    right, images = scores["correct"], scores["images"]
    return f"{right:,} of {images:,} images of the {scores['split']} split are labelled right."


def score_tiles(scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The numbers that matter: name, value and note."""
    low, high = scores["accuracy_interval"]
    interval = f"95 % interval {low * 100:.1f} to {high * 100:.1f} %"
    baseline = f"; majority class {percent_of(scores['majority'])}" if "majority" in scores else ""
    yield "Accuracy", percent_of(scores["accuracy"]), interval + baseline
    if len(scores["labels"]) > 5:
        yield "Top-5 accuracy", percent_of(scores["top5"]), "true class among the 5 likeliest"
    yield "Calibration error", percent_of(scores["ece"]), f"{scores['ece_bins']} bins of equal width"
    yield "Log loss", f"{scores['nll']:.3f}", f"Brier score {scores['brier']:.3f}"
    yield "Parameters", f"{scores['parameters']:,}", f"{len(scores['labels'])} classes"


def percent_of(value: float) -> str:
    """A share with one decimal, two where it is near 100."""
    return percent(value, 2 if 0.99 <= value < 1 else 1)


def classes(material: Material) -> Section:
    """The confusion matrix beside the scores of each class, worst first."""
    scores = material.scores
    if not scores:
        return Section(title="Classes")
    drawn = len(scores["labels"]) <= MOST_CLASSES_DRAWN and scores["confusion"]
    rows = [
        _class_row(row)
        for row in sorted(scores["per_class"], key=lambda row: (row["f1"] is None, row["f1"] or 0.0))
    ]
    return Section(
        title="Classes",
        note="In the matrix a row is a true class, a column a prediction, the shade a share of the row. "
        "The table has the worst first."
        if drawn
        else "The worst first.",
        body=render(
            "tesela.tasks.classification/classes.html.j2",
            matrix=confusion_chart(scores["confusion"], scores["labels"]) if drawn else "",
            worst=data_table(CLASS_COLUMNS, rows[:CLASSES_SHOWN]),
            others=data_table(CLASS_COLUMNS, rows[CLASSES_SHOWN:]) if len(rows) > CLASSES_SHOWN else "",
            count=len(rows) - CLASSES_SHOWN,
            pairs=scores["most_confused"][:PAIRS_SHOWN],
        ),
    )


def _class_row(row: Mapping[str, Any]) -> Sequence[str]:
    f1, *others = (
        "–" if row[name] is None else percent(row[name], 1) for name in ("f1", "recall", "precision")
    )
    return row["label"], f1, f"{(row['f1'] or 0) * 100:.1f}%", *others, f"{row['support']:,}"


def calibration(material: Material) -> Section:
    """The reliability diagram."""
    scores = material.scores
    if not scores:
        return Section(title="Calibration")
    filled = [row for row in scores["reliability"] if row["count"]]
    sure = sum(row["count"] * row["confidence"] for row in filled) / scores["images"]
    return Section(
        title="Calibration",
        note=f"The model is {percent(sure, 1)} sure on average and right in {percent(scores['accuracy'], 1)};"
        f" the mean gap over the bins, the expected calibration error, is {scores['ece'] * 100:.1f} points. "
        "A bar that ends at its mark is as often right as the model says.",
        body=charts_row(reliability_chart(scores["reliability"])),
    )


def _pictures(material: Material, name: str, *, kind: str, files: Sequence[bytes] | None = None) -> str:
    """A grid of the images of one set with what the model said, or of ``files`` in their place."""
    pictures = list(_picture_set(material, name, files))
    template = "tesela.tasks.classification/pictures.html.j2"
    return render(template, kind=kind, pictures=pictures) if pictures else ""


def _picture_set(material: Material, name: str, files: Sequence[bytes] | None) -> Iterator[dict[str, Any]]:
    arrays = material.arrays
    if name not in arrays:
        return
    labels, images = material.scores["labels"], arrays[f"{name}_images"]
    pngs: Iterable[bytes] = map(encode_png, images) if files is None else files
    for png, place, title in zip(pngs, arrays[name], arrays[f"{name}_names"], strict=False):
        shares: npt.NDArray[np.floating[Any]] = arrays["probabilities"][place]
        true, predicted = int(arrays["targets"][place]), int(shares.argmax())
        words = (f"{labels[label]} ({shares[label]:.1%})" for label in (true, predicted))
        yield {
            "png": png,
            "small": files is None and max(images.shape[1:3]) < SMALL_IMAGE,
            "true": labels[true],
            "predicted": labels[predicted],
            "right": true == predicted,
            "sure": float(shares[predicted]),
            "tip": "{}: true {}, predicted {}".format(title, *words),
        }
