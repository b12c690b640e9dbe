"""The few-shot section of the report: numbers of few_shot.json and of the rows of the training."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.evaluation.test_evaluate import write_run

from tesela.cli.main import run
from tesela.evaluation.few_shot import few_shot
from tesela.reports.few_shot import few_shot_section
from tesela.reports.report import read_material, write_report
from tesela.runs.folder import Run


def test_a_report_without_few_shot_has_no_such_section(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert "Few-shot" not in write_report(tmp_path).read_text()


def test_the_section_shows_all_classifiers_with_their_deviations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reference: few_shot.json."""
    write_run(tmp_path)
    assert run(["evaluate", str(tmp_path), "--few-shot", "1,5", "--draws", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    section = page[page.index("<h2>Few-shot accuracy") :]
    for row in json.loads((tmp_path / "few_shot.json").read_text())["few_shot"]:
        for name in ("ridge", "knn", "probe"):
            mean, deviation = row[name]["mean"], row[name]["deviation"]
            assert f"{100 * mean:.2f} ± {100 * deviation:.2f} %" in section
    assert section.count("<circle") >= 6 and "over 3 draws" in section
    assert {"ridge regression", "nearest neighbours", "linear probe"} <= set(
        re.findall(r">([a-z ]+)</span>", section)
    )


def test_other_data_leaves_the_report_alone(tmp_path: Path) -> None:
    write_run(tmp_path)
    few_shot(tmp_path, "digits", shots=[1], draws=1, split="val")
    assert not (tmp_path / "report.html").exists()


def test_accuracies_of_the_training_are_drawn_by_epoch(tmp_path: Path) -> None:
    write_run(tmp_path)
    rows = [
        {"kind": "epoch", "epoch": place, "step": place + 1, "val_few_shot_1": value, "val_few_shot_10": 0.5}
        for place, value in enumerate((0.1, 0.2, 0.3))
    ]
    Run(tmp_path).metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = few_shot_section(read_material(Run(tmp_path)))
    assert "1 of each class" in section.body and "10 of each class" in section.body
    lines = re.findall(r'<polyline class="line tone\d" points="([^"]+)"', section.body)
    assert [len(line.split()) for line in lines] == [3, 3]
    heights = [float(point.split(",")[1]) for point in lines[0].split()]
    assert (
        heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2) and heights[0] > heights[2]
    )
    assert "draws" not in section.note
