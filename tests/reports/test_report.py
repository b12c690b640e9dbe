"""The report: self-contained, escaped, well-formed, and its numbers and pictures those of the run folder."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markupsafe import escape
from PIL import Image
from tests.evaluation.test_evaluate import write_run

from tesela.attribution.draw.report import explain_for_report
from tesela.core.errors import UsageError
from tesela.evaluation.evaluate import evaluate_run
from tesela.evaluation.pictures import choose_pictures, random_places
from tesela.imaging.spec import ImageSpec
from tesela.metrics.classification import ClassificationScores
from tesela.models.bundle import load_bundle
from tesela.page.charts.axis import ticks
from tesela.page.charts.confusion import confusion_chart
from tesela.page.charts.line import Series, line_chart, thin
from tesela.page.charts.reliability import reliability_chart
from tesela.page.document import data_uri
from tesela.reports.report import write_report
from tesela.tasks.catalog import find_task
from tesela.tasks.classification.task import of_each_class, surest_mistakes

VOID = {"meta", "img", "br", "wbr"}
HOSTILE = '<script>alert("x")</script>'
LABELS = ["cat", HOSTILE, "a & b"]


class Page(HTMLParser):
    """What is on a page: balanced tags, text, images, and everything that would be loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[str] = []
        self.outside: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                (self.images if (value or "").startswith("data:") else self.outside).append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class Squares:
    """Items: image i is a square of grey level i; names hold what must be escaped."""

    def __init__(self, count: int) -> None:
        self.targets = np.arange(count) % 3
        self.columns: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> np.ndarray:
        return np.full((6, 6, 1), index, np.uint8)

    def name(self, index: int) -> str:
        return f'<b>"{index}"'

    def raw(self, index: int) -> bytes | None:
        return None


def make_run(folder: Path, *, count: int = 90, labels: list[str] = LABELS) -> dict[str, Any]:
    """A run folder as training and evaluation leave it; what evaluation.json holds."""
    generator = np.random.default_rng(0)
    items = Squares(count)
    logits = generator.normal(0, 1, (count, len(labels)))
    logits[np.arange(count), items.targets] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counted = ClassificationScores(labels)
    counted.update(probabilities, items.targets)
    scores = counted.result()
    spec = ImageSpec(height=6, width=6, channels=1, mean=(0.5,), std=(0.5,))
    indices = np.arange(count)
    pictures: dict[str, Any] = choose_pictures(
        find_task("classify"),
        {"probabilities": probabilities, "targets": items.targets},
        indices,
        items,
        spec,
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "predictions.npz",
        probabilities=probabilities,
        targets=items.targets,
        indices=indices,
        **pictures,
    )
    about = {
        "model": "vit_tiny",
        "parameters": 1234,
        "labels": labels,
        "data": HOSTILE,
        "split": "test",
        "precision": "fp32",
        "device": "cpu",
    }
    evaluation = {**about, **scores, "environment": {"torch": "2.x"}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"model": "vit_tiny", "data": {"source": "my photos"}, "note": HOSTILE})
    )
    steps = [
        {"kind": "step", "step": step, "epoch": step // 10, "loss": 2 / step, "lr": 1e-3}
        for step in range(1, 31)
    ]
    epochs = [
        {
            "kind": "epoch",
            "epoch": e,
            "step": 10 * e + 10,
            "train_loss": 1 / (e + 1),
            "val_loss": 0.5,
            "val_accuracy": 0.9,
        }
        for e in range(3)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*steps, *epochs])) + '\n{"kind": "st')
    (folder / "timing.jsonl").write_text(json.dumps({"step": 30, "elapsed": 75.0}) + "\n")
    return evaluation


def test_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    """Reference: the HTML parser of the standard library: balanced tags, no script, nothing loaded from
    outside."""
    make_run(tmp_path)
    report = write_report(tmp_path)
    page = Page(report.read_text(encoding="utf-8"))
    assert report == tmp_path / "report.html"
    assert page.outside == []
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?://|@import|url\(", report.read_text(encoding="utf-8"))
    titles = "Curves Classes Predictions Most confident mistakes Calibration Run it again Environment"
    assert all(title in page.text for title in titles.split())


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """Reference: hostile labels, names, data set and configuration come back from the parser as text, not as
    tags."""
    make_run(tmp_path)
    source = write_report(tmp_path).read_text(encoding="utf-8")
    assert HOSTILE not in source
    assert "<b>&quot;" not in source and '<b>"' not in source
    assert HOSTILE in Page(source).text


def test_headline_numbers_are_those_of_the_evaluation(tmp_path: Path) -> None:
    """Reference: evaluation.json, formatted here."""
    evaluation = make_run(tmp_path)
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert f"{evaluation['correct']} of 90 images of the test split" in text
    assert f"{evaluation['accuracy'] * 100:.1f} %" in text
    assert f"{evaluation['ece'] * 100:.1f} %" in text
    assert f"{evaluation['nll']:.3f}" in text
    assert "1 min 15 s" in text and "3 epochs" in text and "1,234" in text


def test_grid_shows_the_sample_with_right_and_wrong_marked(tmp_path: Path) -> None:
    """Reference: the 64 images decoded from the page against the data, right and wrong counted from the
    probabilities."""
    make_run(tmp_path)
    source = write_report(tmp_path).read_text(encoding="utf-8")
    grid = source.split('<div class="samples">')[1].split("</div>")[0]
    found = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        for text in re.findall(r"base64,([^\"]+)", grid)
    ]
    positions = random_places(90)
    assert [int(image[0, 0]) for image in found] == positions.tolist()
    with np.load(tmp_path / "predictions.npz") as arrays:
        wrong = (arrays["probabilities"].argmax(1) != arrays["targets"])[positions].sum()
    assert grid.count('class="miss"') == grid.count("✗") == wrong > 0


def test_surest_mistakes_by_hand() -> None:
    """Reference: five rows by hand: of the three wrong ones the surest comes first."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01], [0.3, 0.7]])
    assert surest_mistakes(probabilities, np.array([0, 1, 0, 1, 1])).tolist() == [3, 2, 1]
    assert surest_mistakes(probabilities, np.array([0, 0, 1, 0, 1])).tolist() == []


def test_shown_images_go_round_the_classes() -> None:
    """Reference: by hand: the first of each class in the order met, then the second ones."""
    targets = np.array([5, 5, 5, 7, 7, 9])
    assert of_each_class(np.array([0, 3, 1, 2, 5, 4]), targets, most=5).tolist() == [0, 3, 5, 1, 4]


def test_explanations_are_made_once_and_stay(tmp_path: Path) -> None:
    """Reference: the pictures made by hand from the run's own model; they are on the next page too, made
    without the model."""
    write_run(tmp_path)
    evaluate_run(tmp_path, device="cpu")
    first = write_report(tmp_path, explain=True).read_text(encoding="utf-8")
    with np.load(tmp_path / "predictions.npz") as stored:
        images = stored["shown_images"]
    model, info = load_bundle(tmp_path / "bundle")
    wanted = explain_for_report(model, list(images), spec=info.image)
    assert len(wanted) == 8 and "Explanations" in first
    (tmp_path / "bundle" / "model.safetensors").unlink()
    for source in (first, write_report(tmp_path).read_text(encoding="utf-8")):
        assert all(data_uri(picture) in source for picture in wanted)


def test_reports_of_unfinished_runs_are_shorter(tmp_path: Path) -> None:
    """Reference: a folder with a configuration only, then with rows too; a folder without a run is
    refused."""
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    make_run(tmp_path / "whole")
    (tmp_path / "config.yaml").write_text("model: vit_tiny\n")
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "not been evaluated" in text and "Curves" not in text
    (tmp_path / "metrics.jsonl").write_bytes((tmp_path / "whole" / "metrics.jsonl").read_bytes())
    assert "Curves" in Page(write_report(tmp_path).read_text(encoding="utf-8")).text


def test_command_to_run_again_is_quoted(tmp_path: Path) -> None:
    """Reference: shell words: a data set and a folder with spaces come back whole from shlex."""
    import shlex

    folder = tmp_path / "my run"
    make_run(folder)
    text = "".join(Page(write_report(folder).read_text(encoding="utf-8")).texts)
    line = next(line for line in text.splitlines() if "tesela train" in line)
    words = shlex.split(line[line.index("tesela train") :])
    assert words == [
        "tesela",
        "train",
        "my photos",
        "--config",
        f"{folder}/config.yaml",
        "--out",
        f"{folder}-again",
    ]


def test_report_is_reproducible(tmp_path: Path) -> None:
    """Reference: the bytes of an earlier report of the same folder."""
    make_run(tmp_path)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def coordinates(svg: str, *, which: int = 0) -> list[tuple[float, float]]:
    """The points of the n-th line of a chart."""
    path = re.findall(r'<polyline[^>]* points="([^"]+)"', svg)[which]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in path.split())]


def test_lines_lie_where_their_values_are() -> None:
    """Reference: places computed here from the values and the grid line of 0.6 that the chart draws
    itself."""
    series = Series(name="a", points=[(0, 0.0), (1, 1.0), (2, 0.5)])
    svg = escape(line_chart([series], title="t", x_label="x", low=0, high=1))
    points = coordinates(svg)
    half = (
        next(
            float(y)
            for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([^<]+)<', svg)
            if text == "0.6"
        )
        - 4
    )
    assert points[0][1] > half > points[1][1]
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2, abs=0.1)
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert half == pytest.approx(points[0][1] + 0.6 * (points[1][1] - points[0][1]), abs=0.1)


def test_charts_without_values_say_so() -> None:
    """Reference: no line is drawn for an empty or a not finite series; one point is a dot."""
    empty = escape(line_chart([Series(name="a", points=[(1, math.nan)])], title="t", x_label="x"))
    assert "Nothing was recorded" in empty and "<svg" not in empty
    assert "<circle" in escape(line_chart([Series(name="a", points=[(1, 2.0)])], title="t", x_label="x"))


def test_long_series_are_thinned_to_means() -> None:
    """Reference: means of ten neighbours, by NumPy; values that are not finite are dropped."""
    values = np.random.default_rng(0).normal(size=1000)
    thinned = thin(list(enumerate(values.tolist())), most=100)
    assert np.allclose(
        thinned, np.stack([np.arange(1000).reshape(100, 10).mean(1), values.reshape(100, 10).mean(1)], 1)
    )
    assert thin([(0, 1.0), (1, math.inf), (2, 3.0)]) == [(0, 1.0), (2, 3.0)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.013, 0.97), (-3, 250), (1e-5, 3e-4), (2, 2)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    """Reference: the definition: equal steps of 1, 2 or 5 times a power of ten, none outside, a readable
    number of them."""
    found = ticks(low, high)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    gaps = np.diff(found)
    if len(gaps):
        assert np.allclose(gaps, gaps[0])
        assert round(gaps[0] / 10 ** math.floor(math.log10(gaps[0]) + 1e-9), 6) in (1, 2, 5)


def test_confusion_cells_hold_the_counts() -> None:
    """Reference: the matrix itself; a larger share of the row is darker; zeros are empty."""
    svg = confusion_chart([[5, 5, 0], [0, 9, 1], [0, 0, 4]], ["a", "b", "c"])
    tips = re.findall(
        r'class="(right|wrong)" fill-opacity="([\d.]+)"[^>]*><title>true (\w), predicted (\w): (\d+)<', svg
    )
    assert [(kind, true, guess, count) for kind, _, true, guess, count in tips] == [
        ("right", "a", "a", "5"),
        ("wrong", "a", "b", "5"),
        ("right", "b", "b", "9"),
        ("wrong", "b", "c", "1"),
        ("right", "c", "c", "4"),
    ]
    shades = [float(shade) for _, shade, *_ in tips]
    assert shades[3] < shades[0] == shades[1] < shades[2] < shades[4]
    assert svg.count('class="count') == 5
    assert 'class="count' not in confusion_chart([[1] * 31] * 31, ["n"] * 31)


def test_reliability_bars_have_the_bins_heights() -> None:
    """Reference: bar heights computed from the accuracies and the height of the whole axis."""
    bins: list[dict[str, Any]] = [
        {"low": 0.0, "high": 0.5, "count": 4, "confidence": 0.4, "accuracy": 0.25},
        {"low": 0.5, "high": 1.0, "count": 12, "confidence": 0.9, "accuracy": 1.0},
    ]
    svg = escape(reliability_chart(bins))
    heights = [float(height) for height in re.findall(r'<rect class="right"[^>]* height="([\d.]+)"', svg)]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.01)
    counts = [float(height) for height in re.findall(r'<rect class="neutral"[^>]* height="([\d.]+)"', svg)]
    assert counts[0] / counts[1] == pytest.approx(4 / 12, abs=0.01)
    assert "4 images: probability 40.0%, right 25.0%" in svg
