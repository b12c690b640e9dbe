"""A classifier's part of the report: scores, classes, sample predictions, mistakes, explanations, calibration.

Every text that comes from a file or a person goes through ``escape``. A section without its material is empty and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.imaging.png import encode_png
from tesela.page.charts import short
from tesela.page.document import data_uri
from tesela.page.section import Section
from tesela.tasks.classification.charts import confusion_chart, reliability_chart
from tesela.tasks.material import Material

MOST_CLASSES_DRAWN = 60
SMALL_IMAGE = 48
"""Thumbnails below this side are enlarged without blurring."""


def sections(material: Material) -> list[Section]:
    """The sections, in the order of the report."""
    parts = (classes, samples, mistakes, explanations, calibration)
    return [part(material) for part in parts]


def lead(scores: Mapping[str, Any]) -> str:
    """One sentence on what was reached."""
    return f"{scores['correct']:,} of {scores['images']:,} images of the {scores['split']} split are labelled right."


def score_tiles(scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The numbers that matter: name, value and note."""
    low, high = scores["accuracy_interval"]
    yield "Accuracy", percent_of(scores["accuracy"]), f"95 % interval {low * 100:.1f} to {high * 100:.1f} %"
    if len(scores["labels"]) > 5:
        yield "Top-5 accuracy", percent_of(scores["top5"]), "true class among the 5 likeliest"
    yield "Calibration error", percent_of(scores["ece"]), f"{scores['ece_bins']} bins of equal width"
    yield "Log loss", f"{scores['nll']:.3f}", f"Brier score {scores['brier']:.3f}"
    yield "Parameters", f"{scores['parameters']:,}", f"{len(scores['labels'])} classes"


def percent_of(value: float) -> str:
    """A share with one decimal, two where it is near 100."""
    return f"{value * 100:.2f} %" if 0.99 <= value < 1 else f"{value * 100:.1f} %"


def classes(material: Material) -> Section:
    """The confusion matrix beside the scores of each class, worst first."""
    scores = material.scores
    if not scores:
        return Section.none()
    matrix = ""
    if len(scores["labels"]) <= MOST_CLASSES_DRAWN and scores["confusion"]:
        matrix = f"<div>{confusion_chart(scores['confusion'], scores['labels'])}</div>"
    tables = f"<div>{class_table(scores['per_class'])}</div>"
    pairs = _pairs(scores["most_confused"])
    return Section.of(
        "Classes",
        f'<div class="pair">{matrix}{tables}</div>{pairs}',
        text="In the matrix a row is a true class, a column a prediction, the shade a share of the row. The table has the worst first."
        if matrix
        else "The worst first.",
    )


def class_table(rows: Sequence[dict[str, Any]], *, shown: int = 20) -> str:
    """Recall, precision, F1 and support of each class; beyond ``shown`` the rest is folded away."""
    ordered = sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))
    table = _class_rows(ordered[:shown])
    if len(ordered) > shown:
        table += f"<details><summary>The other {len(ordered) - shown} classes</summary>{_class_rows(ordered[shown:])}</details>"
    return table


def _class_rows(rows: Sequence[dict[str, Any]]) -> str:
    names = ("F1", "", "recall", "precision", "images")
    head = "<tr><th>class</th>" + "".join(f'<th class="n">{name}</th>' for name in names) + "</tr>"
    body = "".join(
        f'<tr><td class="name">{escape(row["label"])}</td><td class="n">{_share(row["f1"])}</td>'
        f'<td><span class="meter"><i style="width:{(row["f1"] or 0) * 100:.1f}%"></i></span></td>'
        f'<td class="n">{_share(row["recall"])}</td><td class="n">{_share(row["precision"])}</td><td class="n">{row["support"]:,}</td></tr>'
        for row in rows
    )
    return f'<div class="scroll"><table>{head}{body}</table></div>'


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def _pairs(pairs: Sequence[dict[str, Any]]) -> str:
    if not pairs:
        return ""
    told = "; ".join(
        f"{pair['true']} as {pair['predicted']} ({pair['count']}, {pair['share'] * 100:.1f} %)"
        for pair in pairs[:6]
    )
    return f'<p class="muted" style="margin-top:18px">Confused most: {escape(told)}.</p>'


def calibration(material: Material) -> Section:
    """The reliability diagram."""
    scores = material.scores
    if not scores:
        return Section.none()
    sure = (
        sum(row["count"] * row["confidence"] for row in scores["reliability"] if row["count"])
        / scores["images"]
    )
    text = (
        f"The model is {sure * 100:.1f} % sure on average and right in {scores['accuracy'] * 100:.1f} %; "
        f"the mean gap over the bins, the expected calibration error, is {scores['ece'] * 100:.1f} points."
    )
    hint = '<p class="muted">A bar that ends at its mark is as often right as the model says.</p>'
    return Section.of("Calibration", hint, reliability_chart(scores["reliability"]), text=text)


def samples(material: Material) -> Section:
    """An 8 x 8 grid of predictions, right ones green, wrong ones red."""
    figures = [_sample(material, *row) for row in _set(material, "sample")]
    return Section.of(
        "Predictions",
        f'<div class="samples">{"".join(figures)}</div>' if figures else "",
        text="A fixed sample, true/predicted; ✗ marks mistakes.",
    )


def _set(material: Material, name: str) -> list[tuple[int, npt.NDArray[np.uint8], str]]:
    arrays = material.arrays
    if name not in arrays:
        return []
    return [
        (int(place), image, str(title))
        for place, image, title in zip(
            arrays[name], arrays[f"{name}_images"], arrays[f"{name}_names"], strict=True
        )
    ]


def _sample(material: Material, place: int, image: npt.NDArray[np.uint8], name: str) -> str:
    true, guess, sure, _ = _verdict(material, place)
    kind, mark = ("", "") if true == guess else (' class="miss"', " ✗")
    tip = f"{name}: true {true}, predicted {guess} ({sure:.1%})"
    shown = picture(encode_png(image), tip, side=max(image.shape[:2]))
    return f"<figure{kind}>{shown}<figcaption>{escape(short(true))}/<wbr>{escape(short(guess))}{mark}</figcaption></figure>"


def _verdict(material: Material, place: int) -> tuple[str, str, float, float]:
    """True label, predicted label, their probabilities (predicted first)."""
    labels, row = material.scores["labels"], material.arrays["probabilities"][place]
    true, guess = int(material.arrays["targets"][place]), int(row.argmax())
    return labels[true], labels[guess], float(row[guess]), float(row[true])


def picture(data: bytes, tip: str, *, side: int) -> str:
    """A PNG file as an inline image."""
    kind = ' class="small"' if side < SMALL_IMAGE else ""
    return f'<img{kind} src="{data_uri(data)}" alt="{escape(tip, quote=True)}" title="{escape(tip, quote=True)}">'


def mistakes(material: Material) -> Section:
    """The wrong predictions that the model was surest of."""
    figures = []
    for place, image, name in _set(material, "mistakes"):
        true, guess, sure, doubt = _verdict(material, place)
        said = f"said <b>{escape(short(guess))}</b>, {sure * 100:.0f}&nbsp;%<br>true: {escape(short(true))}"
        tip = f"{name}: said {guess} ({sure:.1%}), true {true} ({doubt:.1%})"
        figures.append(
            f"<figure>{picture(encode_png(image), tip, side=max(image.shape[:2]))}<figcaption>{said}</figcaption></figure>"
        )
    return Section.of(
        "Most confident mistakes", f'<div class="mistakes">{"".join(figures)}</div>' if figures else ""
    )


def explanations(material: Material) -> Section:
    """What the model looked at, for a few images."""
    figures = []
    for (place, _, name), data in zip(_set(material, "shown"), material.explanations, strict=False):
        true, guess, sure, _ = _verdict(material, place)
        said = escape(guess) if guess == true else f"{escape(guess)} (true: {escape(true)})"
        figures.append(
            f"<figure>{picture(data, name, side=SMALL_IMAGE)}<figcaption>{said}, {sure * 100:.0f}&nbsp;%</figcaption></figure>"
        )
    return Section.of(
        "Explanations",
        f'<div class="shown">{"".join(figures)}</div>' if figures else "",
        text="Yellow: the parts that the prediction rests on, as far as attention and its gradients tell.",
    )
