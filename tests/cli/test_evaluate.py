"""``tesela evaluate`` as people call it: tables, JSON, files, exit codes.

The scores themselves are tested in tests/train.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.evaluation.test_evaluate import write_run

from tesela.cli.main import run
from tesela.tasks.classification.tables import class_table, share


def test_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: evaluation.json, whose accuracy is the one that is printed; the report is written."""
    write_run(tmp_path)
    assert run(["evaluate", str(tmp_path), "--top", "3", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert share(kept["accuracy"]) in shown
    assert "top-3 accuracy" in shown and share(kept["top3"]) in shown
    assert "Classes, worst first" in shown and "Confused most" in shown
    assert (tmp_path / "report.html").is_file()
    assert str(tmp_path / "report.html") in shown.replace("\n", "")


def test_json_is_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: standard output parsed as JSON, against evaluation.json; the tables go to standard error."""
    write_run(tmp_path)
    assert run(["evaluate", str(tmp_path), "--json", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    answer = json.loads(output.out)
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert all(answer[name] == value for name, value in kept.items())
    assert answer["run"] == str(tmp_path)
    assert {"accuracy", "top5", "parameters", "seconds", "images_per_second"} <= set(answer)
    assert "Classes, worst first" in output.err


def test_other_split_leaves_the_runs_scores_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: bytes of evaluation.json before and after."""
    write_run(tmp_path)
    assert run(["evaluate", str(tmp_path), "--device", "cpu"]) == 0
    before = (tmp_path / "evaluation.json").read_bytes()
    assert run(["evaluate", str(tmp_path), "--split", "val", "--device", "cpu"]) == 0
    assert (tmp_path / "evaluation.json").read_bytes() == before
    assert (tmp_path / "evaluations" / "digits-val" / "evaluation.json").is_file()


def test_a_foreign_checkpoint_has_the_scores_of_the_run_it_was_exported_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reference: the run's own evaluation; the folder of the checkpoint is left as it is."""
    run_folder, foreign = tmp_path / "run", tmp_path / "hf"
    write_run(run_folder)
    assert run(["export", str(run_folder), "--to", "hf", "--out", str(foreign)]) == 0
    files = {file: file.read_bytes() for file in foreign.iterdir()}
    capsys.readouterr()
    assert run(["evaluate", str(foreign), "digits", "--split", "val", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run(["evaluate", str(run_folder), "digits", "--split", "val", "--json", "--device", "cpu"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert (found["accuracy"], found["images"], found["folder"]) == (own["accuracy"], own["images"], None)
    assert found["nll"] == pytest.approx(own["nll"], rel=1e-5)
    assert {file: file.read_bytes() for file in foreign.iterdir()} == files


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["missing"], 2, "no run or bundle"),
        (["RUN", "nowhere"], 2, "no data at nowhere"),
        (["RUN", "--split", "tests"], 2, "unknown split 'tests'"),
        (["RUN", "--top", "0"], 2, "1 or more"),
    ],
)
def test_errors_are_two_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    """Reference: exit codes and the two lines that the specification promises."""
    write_run(tmp_path)
    assert (
        run(["evaluate", *(str(tmp_path) if word == "RUN" else word for word in words), "--device", "cpu"])
        == code
    )
    lines = capsys.readouterr().err.strip().splitlines()[-2:]
    assert lines[0].startswith("error: ") and message in lines[0]
    assert lines[1].startswith("hint: ")


def test_class_table_is_sorted_and_cut() -> None:
    """Reference: thirty classes by hand: the worst twenty are shown, those without a score come last."""
    rows = [
        {"label": f"c{index}", "f1": index / 30, "recall": None, "precision": 0.5, "support": 1}
        for index in range(29, -1, -1)
    ]
    rows[0]["f1"] = None
    table = class_table(rows)
    labels = [str(cell) for cell in table.columns[0].cells]
    assert labels == [f"c{index}" for index in range(20)]
    assert "10 better" in str(table.caption)


def test_few_shot_shows_a_table_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: few_shot.json in the run folder."""
    write_run(tmp_path)
    words = ["evaluate", str(tmp_path), "--few-shot", "1,5", "--draws", "2", "--device", "cpu"]
    assert run([*words, "--json"]) == 0
    output = capsys.readouterr()
    answer = json.loads(output.out)
    kept = json.loads((tmp_path / "few_shot.json").read_text())
    assert all(answer[name] == value for name, value in kept.items())
    assert [row["shots"] for row in answer["few_shot"]] == [1, 5]
    ridge = answer["few_shot"][1]["ridge"]
    assert f"{ridge['mean'] * 100:.2f} ± {ridge['deviation'] * 100:.2f} %" in output.err
    assert "nearest neighbours" in output.err and "linear probe" in output.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--few-shot", "1,500"], 1, "fewer than 500 shots"),
        (["--few-shot", "0"], 2, "shots must be 1 or more"),
        (["--few-shot", "many"], 2, "few_shot"),
        (["--few-shot", "1", "--top", "3"], 2, "--top"),
        (["--few-shot", "1", "--mistakes", "x.csv"], 2, "--mistakes"),
        (["--draws", "3"], 2, "--few-shot"),
    ],
)
def test_few_shot_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    write_run(tmp_path)
    assert run(["evaluate", str(tmp_path), *words]) == code
    error = capsys.readouterr().err
    assert said in error and "hint: " in error
