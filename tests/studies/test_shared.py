"""Several processes on one study share its cells out, and each has the whole answer in the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tesela.core.errors import ConfigError, UsageError
from tesela.runs.folder import Run
from tesela.studies.config import StudyConfig
from tesela.studies.study import open_study, run_study

MODEL = "vit_nano:width=16:depth=1:heads=2"
SETTINGS = {"precision": "fp32", "attention": "fused", "threads": "1"}
WORDS = ["data-size", "digits", "--models", MODEL, "--labels", "40,80", "--epochs", "1", "--seeds", "2"]
ONE_SEED = StudyConfig(
    kind="data-size", data="digits", models=(MODEL,), labels=(40,), epochs=(1,), seeds=1, settings=SETTINGS
)


def test_two_processes_share_the_cells_out(tmp_path: Path) -> None:
    out = tmp_path / "size"
    words = [sys.executable, "-m", "tesela", "study", *WORDS, "--out", str(out), "--json"]
    words += [f"{name}={value}" for name, value in SETTINGS.items()]
    both = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    answers = [json.loads(printed.splitlines()[-1]) for printed, _ in ended]
    assert answers[0] == answers[1] and answers[0]["finished"] == 4 and answers[0]["failed"] == []
    computed = {
        line.split()[1].rstrip(":") for _, said in ended for line in said.splitlines() if "/4  " in line
    }
    assert sorted(computed) == sorted(path.name for path in (out / "cells").iterdir())
    for path in out.glob("cells/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [row["epoch"] for row in rows if row["kind"] == "epoch"]
        assert epochs == list(range(len(epochs)))  # none was computed twice


def test_a_cell_that_is_another_process_s_is_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "size"
    study = open_study(replace(ONE_SEED, seeds=2), out)
    first, second = (study.folder.run(cell) for cell in study.cells)
    said: list[str] = []
    waiting = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            waiting.set()

    study.folder.claim(study.config, study.facts, study.cells)
    worker = threading.Thread(target=lambda: run_study(study, say=say))
    with Run(first.path).locked():
        worker.start()
        assert waiting.wait(120)
        assert second.result.is_file() and not first.result.is_file()
    worker.join(120)
    assert first.result.is_file()
    cells = [cell.name for cell in study.cells]
    assert said[0].startswith(f"2/2  {cells[1]}") and said[2].startswith(f"1/2  {cells[0]}")
    assert said[1] == f"another process is at {cells[0]}: waiting for it"


def test_seeds_of_two_machines_make_one_study(tmp_path: Path) -> None:
    """Reference: the scores of their runs. A run with other settings is no cell."""
    second = replace(ONE_SEED, first_seed=1)
    means, said = [], list[str]()
    for one, name in ((ONE_SEED, "here"), (second, "there")):
        found = run_study(open_study(one, tmp_path / name), say=said.append)
        means.append(found.answer.numbers["means"][0]["mean"])
    assert [path.name[-5:] for path in (tmp_path / "there" / "cells").iterdir()] == ["seed1"]
    for name in ("here", "there"):
        shutil.copytree(tmp_path / name / "cells", tmp_path / "both" / "cells", dirs_exist_ok=True)
    said.clear()
    both = run_study(open_study(replace(ONE_SEED, seeds=2), tmp_path / "both"), say=said.append)
    assert both.finished == 2 and not said  # nothing was computed
    assert both.answer.numbers["means"][0]["mean"] == pytest.approx(sum(means) / 2)
    shutil.copytree(tmp_path / "there" / "cells", tmp_path / "other" / "cells")
    other = replace(second, settings={**SETTINGS, "optim.lr": 0.01, "augment.hflip": 0.5})
    with pytest.raises(ConfigError, match=r"other settings than the study's: optim\.lr, augment\.hflip\n"):
        run_study(open_study(other, tmp_path / "other"), say=said.append)
    assert not (tmp_path / "other" / "study.json").exists()


def test_numbers_and_words_of_the_same_settings_are_one_study(tmp_path: Path) -> None:
    """The command line gives words, Python numbers."""
    words, numbers = (
        replace(ONE_SEED, settings={**SETTINGS, "threads": threads, "optim.lr": rate})
        for threads, rate in (("1", "0.01"), (1, 1e-2))
    )
    said: list[str] = []
    run_study(open_study(words, tmp_path / "size"), say=said.append)
    assert run_study(open_study(numbers, tmp_path / "size"), say=said.append).finished == 1 == len(said)
    other = replace(numbers, settings={**numbers.settings, "optim.lr": 0.02})
    with pytest.raises(ConfigError, match=r"begun with other settings: optim\.lr \(0\.01 to 0\.02\)"):
        run_study(open_study(other, tmp_path / "size"), say=said.append)


@pytest.mark.parametrize("name", ["cells/mouse/1.png", "cells.csv"])
def test_a_folder_of_something_else_is_left_alone(name: str, tmp_path: Path) -> None:
    file = tmp_path / "photos" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match="is not empty"):
        run_study(open_study(ONE_SEED, tmp_path / "photos"), say=print)
    assert [path for path in (tmp_path / "photos").rglob("*") if path.is_file()] == [file]
