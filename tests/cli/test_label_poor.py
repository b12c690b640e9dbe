"""Bad input of learning with few labels, on the command line: what is wrong, and what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.test_evaluate import write_run
from tests.pictures import make_pictures

from tesela.cli.main import run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of images: unlabelled, of two classes, of one class, and with a single image."""
    make_pictures(tmp_path / "flat", {".": 12})
    make_pictures(tmp_path / "two", {"a": 20, "b": 20})
    make_pictures(tmp_path / "one", {"a": 12})
    make_pictures(tmp_path / "single", {".": 1})
    make_pictures(tmp_path / "lonely", {"a": 1})
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = ("--model", "vit_nano", "--epochs", "1", "--out", "out")
UNLABELLED = "tesela train DATA --task pretrain"


@pytest.mark.parametrize(
    ("words", "code", "said", "hint"),
    [
        ("train two --few-shot 1,500", 1, "fewer than 500 shots", "ask for at most"),
        ("train two --few-shot 0", 2, "shots must be 1 or more", "1,5,10"),
        ("train two --teacher run", 1, "does not know 2 of the data's 2 classes: 'a', 'b'", "it knows 0, 1"),
        ("train flat --task pretrain --objective.mask-ratio 0", 2, "mask_ratio must lie", "0.75 for mae"),
        ("train flat --task pretrain --objective.mask-ratio 1.5", 2, "mask_ratio must lie", "0.75 for mae"),
        ("train flat --task pretrain --objective.mask-ratio nan", 2, "mask_ratio must lie", "0.75 for mae"),
        ("train flat", 1, "12 images but no class folders", UNLABELLED),
        ("train flat --task classify", 1, "12 images but no class folders", UNLABELLED),
        ("train flat --recipe few_labels", 1, "12 images but no class folders", UNLABELLED),
        ("train single --task pretrain", 1, "one training image", "all your images"),
        ("train lonely", 1, "one class only: a", "two class folders"),
        ("study data-size flat", 1, "12 images but no class folders", UNLABELLED),
        ("study few-labels one", 1, "one class only: a", "two class folders"),
        ("study few-labels two --labels 40", 2, "fewer than 40 labels", "--labels 1"),
        ("study claims single", 1, "no class folders", UNLABELLED),
    ],
)
def test_it_is_refused_with_a_way_out(
    words: str, code: int, said: str, hint: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--teacher" in words:
        write_run(place / "run")
    given = words.split()
    rest = TRAIN if given[0] == "train" else ("--minutes", "1", "--out", "out")
    assert run([*given, *rest]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(lines) == 2 and said in lines[0] and hint in lines[1]
    assert not (place / "out" / "config.yaml").exists() and not (place / "out" / "study.json").exists()
