"""``tesela compare``: rows, means and deviations, the files, and what it refuses."""

from __future__ import annotations

import json
import re
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tesela.cli.main import run as tesela
from tesela.models.bundle import load_bundle
from tesela.reports.comparison import group_runs, read_run, settings_table
from tesela.reports.comparison_page import table_of
from tesela.training.config import layered
from tesela.training.run import train

SMALL: dict[str, Any] = {
    "data": {"source": "digits", "subset": 100, "workers": 0},
    "model": "vit_nano",
    "net": {"width": 16, "depth": 1, "heads": 2},
    "batch_size": 20,
    "epochs": 1,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "tensorboard": False,
    "report": False,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds of one configuration, and a deeper network."""
    place = tmp_path_factory.mktemp("runs")
    made = [place / name for name in ("a", "b", "c", "deep")]
    for seed, out in enumerate(made[:3]):
        train(layered(SMALL, {"out": str(out), "seed": seed, "epochs": 3}))
    train(layered(SMALL, {"out": str(made[3]), "net": {"depth": 2}}))
    return made


def test_seeds_become_one_row_with_mean_and_deviation(
    runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Reference: Python's statistics over result.json; parameters and FLOPs from the loaded models."""
    assert tesela(["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--json"]) == 0
    captured = capfd.readouterr()
    answer = json.loads(captured.out.strip().splitlines()[-1])
    rows = {row["n"]: row for row in answer["groups"]}
    assert set(rows) == {1, 3}
    scores = [json.loads((run / "result.json").read_text())["accuracy"] for run in runs[:3]]
    assert rows[3]["score"]["mean"] == pytest.approx(statistics.fmean(scores))
    assert rows[3]["score"]["deviation"] == pytest.approx(statistics.stdev(scores))
    assert rows[1]["score"]["deviation"] is None
    assert rows[3]["name"] == "epochs=3 net.depth=1"
    for run, row in ((runs[0], rows[3]), (runs[3], rows[1])):
        model, info = load_bundle(run / "bundle")
        assert row["parameters"]["mean"] == sum(p.numel() for p in model.parameters())
        assert row["flops"]["mean"] == model.config.flops(info.num_classes)
    assert "±" in captured.err
    best = max(answer["groups"], key=lambda row: row["score"]["mean"])
    assert answer["groups"][0]["name"] == best["name"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["groups"] == answer["groups"]


def test_the_page_needs_nothing_else_and_the_plot_has_a_dot_for_each_row(
    runs: list[Path], tmp_path: Path
) -> None:
    """Reference: the XML of the SVG; four panels of two groups, of which one has bars."""
    assert tesela(["compare", *map(str, runs), "--out", str(tmp_path)]) == 0
    page, plot = ((tmp_path / f"compare.{kind}").read_text() for kind in ("html", "svg"))
    assert not re.search(r"<script|<link|src=|@import|url\(", page)
    assert page.count("<circle") == 8
    assert "prefers-color-scheme: dark" in plot
    root = ET.fromstring(plot)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}circle")) == 8
    deviation = group_runs(runs)[0].values["score"].deviation or group_runs(runs)[1].values["score"].deviation
    assert len(root.findall(f".//{space}line[@class='bar']")) == (4 if deviation else 0)
    for run in runs:
        assert str(run) in page


def test_what_cannot_be_compared(runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and two lines."""
    for words, message in (
        ([], "no run was named"),
        ([str(tmp_path)], "not a run folder"),
        ([str(runs[0]), str(runs[0])], "named twice"),
    ):
        assert tesela(["compare", *words]) == 2
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 2
        assert message in lines[0]


def test_an_unfinished_run_says_how_to_finish_it(
    runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The hint is the command."""
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text((runs[0] / "config.yaml").read_text())
    assert tesela(["compare", str(tmp_path / "half")]) == 2
    assert f"--out {tmp_path / 'half'} --resume" in capfd.readouterr().err


def test_one_run_alone(runs: list[Path]) -> None:
    """Named by its model."""
    group = group_runs([runs[3]])[0]
    assert group.name == "vit_nano"
    assert group.runs == (read_run(runs[3]),)


def test_unfinished_runs_are_left_out_and_named(
    runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text((runs[0] / "config.yaml").read_text())
    assert tesela(["compare", str(runs[0]), str(tmp_path / "half"), str(runs[3]), "--json"]) == 1
    captured = capfd.readouterr()
    answer = json.loads(captured.out.strip().splitlines()[-1])
    assert sum(group["n"] for group in answer["groups"]) == 2
    assert len(answer["left_out"]) == 1 and "half is not finished" in answer["left_out"][0]
    assert f"left out: the run in {tmp_path / 'half'} is not finished" in captured.err


def test_runs_are_named_first_and_only_differences_are_shown(runs: list[Path]) -> None:
    """Two runs of one model differ in depth: no column for what is the same, a line for it instead."""
    titles, rows, same = table_of(group_runs([runs[0], runs[3]]))
    assert titles[1] == "run" and {row[1] for row in rows} == {"a", "deep"}
    assert "n" not in titles and "parameters" in titles and "n 1" in same


def test_settings_that_differ_have_a_row_each(runs: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    """Reference: the two settings that the runs were given, whole words on a terminal of 80 columns."""
    titles, rows = settings_table(group_runs([runs[0], runs[3]]))
    assert titles == ["setting", "1", "2"]
    assert {row[0]: set(row[1:]) for row in rows} == {"epochs": {"3", "1"}, "net.depth": {"1", "2"}}
    assert tesela(["compare", str(runs[0]), str(runs[3])]) == 0
    shown = capfd.readouterr().out
    assert "Settings that differ" in shown and "net.depth " in shown
    assert settings_table(group_runs(runs[:3])) == (["setting", "1"], [])


def test_scores_on_different_data_stand_apart(
    runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The third run has no test split: its score is of the validation images."""
    other = {"data": {**SMALL["data"], "test_fraction": 0.0}, "out": str(tmp_path / "val")}
    train(layered(SMALL, other))
    words = [str(runs[0]), str(runs[3]), str(tmp_path / "val")]
    assert tesela(["compare", *words, "--out", str(tmp_path / "out")]) == 0
    shown = capfd.readouterr().out
    assert "digits, test" in shown and "digits, val" in shown
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Table on digits, test" in page and "Table on digits, val" in page
