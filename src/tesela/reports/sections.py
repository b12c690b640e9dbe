"""The report's sections, each a function from what was read of the run folder to HTML.

Every text that comes from a file or a person goes through ``escape``. A section without its material gives nothing, so a
report of an interrupted run, or of a run without test images, is shorter and never broken.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from tesela.evaluation.pictures import png
from tesela.page.charts import Series, line_chart, percent, short
from tesela.page.document import data_uri, section, tiles
from tesela.reports.charts import confusion_chart, reliability_chart

MOST_CLASSES_DRAWN = 60
SMALL_IMAGE = 48
"""Thumbnails below this side are enlarged without blurring."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What a run folder holds for its report.

    Attributes:
        path: the run folder.
        config: config.yaml.
        choices: choices.json.
        rows: metrics.jsonl.
        seconds: training time.
        scores: evaluation.json.
        arrays: predictions.npz.
        explanations: PNG files to show for the ``shown`` images, in their order.
    """

    path: Path
    config: dict[str, Any]
    choices: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    scores: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    explanations: list[bytes] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl of one kind."""
        return [row for row in self.rows if row.get("kind") == kind]


def headline(material: Material) -> str:
    """The title, one sentence and the numbers that matter."""
    scores, name = (
        material.scores,
        str(material.scores.get("model") or material.config.get("model") or "model"),
    )
    source = str(scores.get("data") or material.config.get("data", {}).get("source") or "data")
    head = f"<h1>{escape(name)} on {escape(source)}</h1>"
    if not scores:
        return head + '<p class="lead">This run has not been evaluated yet.</p>'
    lead = f"{scores['correct']:,} of {scores['images']:,} images of the {scores['split']} split are labelled right."
    return f'{head}<p class="lead">{escape(lead)}</p>{tiles(list(_tiles(material)))}'


def _tiles(material: Material) -> Iterable[tuple[str, str, str]]:
    scores = material.scores
    low, high = scores["accuracy_interval"]
    yield "Accuracy", percent_of(scores["accuracy"]), f"95 % interval {low * 100:.1f} to {high * 100:.1f} %"
    if len(scores["labels"]) > 5:
        yield "Top-5 accuracy", percent_of(scores["top5"]), "true class among the 5 likeliest"
    yield "Calibration error", percent_of(scores["ece"]), f"{scores['ece_bins']} bins of equal width"
    yield "Log loss", f"{scores['nll']:.3f}", f"Brier score {scores['brier']:.3f}"
    yield "Parameters", f"{scores['parameters']:,}", f"{len(scores['labels'])} classes"
    if material.seconds:
        yield "Training time", duration(material.seconds), f"{len(material.of_kind('epoch'))} epochs"


def percent_of(value: float) -> str:
    """A share with one decimal, two where it is near 100."""
    return f"{value * 100:.2f} %" if 0.99 <= value < 1 else f"{value * 100:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def curves(material: Material) -> str:
    """Loss, accuracy and learning rate over the training."""
    epochs, steps = material.of_kind("epoch"), material.of_kind("step")
    if not epochs and not steps:
        return ""
    place = _epoch_of(epochs)
    loss = [
        Series(
            name="each step",
            points=[(place(row), row["loss"]) for row in _with(steps, "loss")],
            tone=1,
            faint=True,
        ),
        Series(name="training", points=_points(epochs, "train_loss"), tone=1),
        Series(name="validation", points=_points(epochs, "val_loss"), tone=2),
    ]
    accuracy = [
        Series(name="training", points=_points(epochs, "train_accuracy"), tone=1),
        Series(name="validation", points=_points(epochs, "val_accuracy"), tone=2),
    ]
    rate = [
        Series(name="learning rate", points=[(place(row), row["lr"]) for row in _with(steps, "lr")], tone=3)
    ]
    charts = [
        line_chart(loss, title="Loss", x_label="epoch", low=0),
        line_chart(accuracy, title="Accuracy", x_label="epoch", y_format=percent, high=1.0),
        line_chart(rate, title="Learning rate", x_label="epoch", low=0),
    ]
    smooth = material.config.get("label_smoothing")
    mixes = any(material.config.get("augment", {}).get(name) for name in ("mixup", "cutmix"))
    reason = (
        " Training loss is taken on augmented images and softened labels, so it can lie above validation loss."
        if smooth or mixes
        else ""
    )
    return section(
        "Curves", f'<div class="charts">{"".join(charts)}</div>', text=f"Over {len(epochs)} epochs.{reason}"
    )


def _with(rows: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row.get(name), (int, float))]


def _points(epochs: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (index, row[name]) for index, row in enumerate(epochs, 1) if isinstance(row.get(name), (int, float))
    ]


def _epoch_of(epochs: Sequence[dict[str, Any]]) -> Any:
    """Where a step's row lies on an axis of epochs: by the steps at which the epochs ended."""
    ends = [0, *(int(row["step"]) for row in epochs)]
    return lambda row: (
        float(np.interp(row["step"], ends, range(len(ends)))) if len(ends) > 1 else float(row["step"])
    )


def classes(material: Material) -> str:
    """The confusion matrix beside the scores of each class, worst first."""
    scores = material.scores
    if not scores:
        return ""
    matrix = ""
    if len(scores["labels"]) <= MOST_CLASSES_DRAWN and scores["confusion"]:
        matrix = f"<div>{confusion_chart(scores['confusion'], scores['labels'])}</div>"
    tables = f"<div>{class_table(scores['per_class'])}</div>"
    pairs = _pairs(scores["most_confused"])
    return section(
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


def calibration(material: Material) -> str:
    """The reliability diagram."""
    scores = material.scores
    if not scores:
        return ""
    sure = (
        sum(row["count"] * row["confidence"] for row in scores["reliability"] if row["count"])
        / scores["images"]
    )
    text = (
        f"The model is {sure * 100:.1f} % sure on average and right in {scores['accuracy'] * 100:.1f} %; "
        f"the mean gap over the bins, the expected calibration error, is {scores['ece'] * 100:.1f} points."
    )
    hint = '<p class="muted">A bar that ends at its mark is as often right as the model says.</p>'
    return section("Calibration", hint, reliability_chart(scores["reliability"]), text=text)


def samples(material: Material) -> str:
    """An 8 x 8 grid of predictions, right ones green, wrong ones red."""
    figures = [_sample(material, *row) for row in _set(material, "sample")]
    return section(
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
    shown = picture(png(image), tip, side=max(image.shape[:2]))
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


def mistakes(material: Material) -> str:
    """The wrong predictions that the model was surest of."""
    figures = []
    for place, image, name in _set(material, "mistakes"):
        true, guess, sure, doubt = _verdict(material, place)
        said = f"said <b>{escape(short(guess))}</b>, {sure * 100:.0f}&nbsp;%<br>true: {escape(short(true))}"
        tip = f"{name}: said {guess} ({sure:.1%}), true {true} ({doubt:.1%})"
        figures.append(
            f"<figure>{picture(png(image), tip, side=max(image.shape[:2]))}<figcaption>{said}</figcaption></figure>"
        )
    return section(
        "Most confident mistakes", f'<div class="mistakes">{"".join(figures)}</div>' if figures else ""
    )


def explanations(material: Material) -> str:
    """What the model looked at, for a few images."""
    figures = []
    for (place, _, name), data in zip(_set(material, "shown"), material.explanations, strict=False):
        true, guess, sure, _ = _verdict(material, place)
        said = escape(guess) if guess == true else f"{escape(guess)} (true: {escape(true)})"
        figures.append(
            f"<figure>{picture(data, name, side=SMALL_IMAGE)}<figcaption>{said}, {sure * 100:.0f}&nbsp;%</figcaption></figure>"
        )
    return section(
        "Explanations",
        f'<div class="shown">{"".join(figures)}</div>' if figures else "",
        text="Yellow: the parts that the prediction rests on, as far as attention and its gradients tell.",
    )


def again(material: Material) -> str:
    """What was run, and the commands that run it again."""
    if not material.config:
        return ""
    source, folder = str(material.config.get("data", {}).get("source") or "DATA"), str(material.path)
    words = ["tesela", "train", source, "--config", f"{folder}/config.yaml", "--out", f"{folder}-again"]
    commands = [shlex.join(words), shlex.join(["tesela", "evaluate", folder])]
    text = escape(yaml.safe_dump(material.config, sort_keys=False, allow_unicode=True))
    parts = [
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        f"<details><summary>config.yaml</summary><pre>{text}</pre></details>",
    ]
    if material.choices:
        chosen = escape(yaml.safe_dump(material.choices, sort_keys=False, allow_unicode=True))
        parts.append(
            f"<details><summary>What was measured and chosen on the machine</summary><pre>{chosen}</pre></details>"
        )
    return section(
        "Run it again",
        *parts,
        text="The configuration is whole: the same file, data and machine give the same bits.",
    )


def surroundings(material: Material) -> str:
    """Versions and machine."""
    values = {**material.scores.get("environment", {})}
    if material.scores:
        values |= {"evaluated with": f"{material.scores['precision']} on {material.scores['device']}"}
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return section("Environment", f'<div class="scroll"><table>{rows}</table></div>' if rows else "")
