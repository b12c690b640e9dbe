"""Trainings with a teacher: resumed to the same bits, refused with another one, run again from their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.training.digit_runs import fingerprint, rows, signal_after, tiny

from tesela.cli.main import run as command
from tesela.core.config import read_yaml
from tesela.core.errors import InterruptedRunError, WeightsError
from tesela.models.bundle import read_info
from tesela.runs.folder import Run
from tesela.training.run import resumed_config, train


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained network of the digits."""
    run = Run(tmp_path_factory.mktemp("runs") / "teacher")
    train(tiny(run.path, epochs=2))
    return run


@pytest.mark.parametrize("augment", [{"hflip": 0.5}, {"crop_padding": 1, "mixup": 0.2}])
def test_a_distillation_resumes_to_the_same_bits(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: dict[str, Any]
) -> None:
    """Reference: the same run that nobody stopped; the teacher's outputs are kept with flips alone."""
    options = {"teacher": str(teacher.path), "seed": 1, "augment": augment}
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    train(tiny(whole.path, **options))
    signal_after(monkeypatch, "loop.after_step", 9)
    with pytest.raises(InterruptedRunError):
        train(tiny(stopped.path, **options))
    monkeypatch.undo()
    train(resumed_config(stopped.path), resume=True)
    assert fingerprint(stopped) == fingerprint(whole)
    assert all("train_teacher_agreement" in row for row in rows(whole, "epoch"))
    assert read_info(whole.bundle).task == read_info(teacher.bundle).task


def test_a_run_is_not_resumed_with_another_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Run
) -> None:
    """Reference: the teacher's folder written again by a run with another seed."""
    other, run = Run(tmp_path / "teacher"), Run(tmp_path / "run")
    train(tiny(other.path, epochs=1))
    signal_after(monkeypatch, "loop.after_step", 9)
    with pytest.raises(InterruptedRunError):
        train(tiny(run.path, teacher=str(other.path)))
    monkeypatch.undo()
    for name in ("config.json", "model.safetensors"):
        (other.bundle / name).write_bytes((teacher.bundle / name).read_bytes())
    with pytest.raises(WeightsError, match="teacher has changed"):
        train(resumed_config(run.path), resume=True)


def test_the_command_line_says_what_teaches(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reference: the plan, config.yaml with an absolute path, and the hints."""
    monkeypatch.chdir(teacher.path.parent)
    words = ["train", "digits", "--model", "vit_nano", "--epochs", "1", "--no-report", "--json"]
    small = ["--data.subset", "100", "--out", str(tmp_path / "run")]
    assert command([*words, *small, "--teacher", "teacher", "--distillation", "hard"]) == 0
    output = capsys.readouterr()
    assert "hard targets, 50% of the loss" in " ".join(output.err.split())
    assert json.loads(output.out)["accuracy"] >= 0
    assert read_yaml(tmp_path / "run" / "config.yaml")["objective"]["teacher"] == str(teacher.path)
    assert command([*words, "--out", str(tmp_path / "b"), "--teacher", "nothing-here"]) == 2
    assert "nothing-here" in capsys.readouterr().err
    assert (
        command([*words, "--out", str(tmp_path / "b"), "--distillation", "hard", "--data.subset", "50"]) == 0
    )
    assert "--distillation has no effect without --teacher" in " ".join(capsys.readouterr().err.split())


def test_teachers_of_other_classes_leave_the_folder_free(
    teacher: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "digits", "--data.classes", "3,4", "--model", "vit_nano", "--epochs", "1"]
    assert command([*words, "--out", str(tmp_path / "two")]) == 0
    assert (
        command(["train", "digits", "--out", str(tmp_path / "run"), "--teacher", str(tmp_path / "two")]) == 1
    )
    error = capsys.readouterr().err
    assert "does not know 8 of the data's 10 classes" in error and "it knows 3, 4" in error
    assert not (tmp_path / "run").exists()
