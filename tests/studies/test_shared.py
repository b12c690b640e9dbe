"""Several processes on one study share its cells out, and each has the whole answer in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from tesela.runs.folder import Run
from tesela.studies.config import StudyConfig
from tesela.studies.study import open_study, run_study

MODEL = "vit_nano:width=16:depth=1:heads=2"
SETTINGS = {"precision": "fp32", "attention": "fused", "threads": "1"}
WORDS = ["data-size", "digits", "--models", MODEL, "--labels", "40,80", "--epochs", "1", "--seeds", "2"]


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
    computed = [
        line.split()[1].rstrip(":") for _, said in ended for line in said.splitlines() if "/4  " in line
    ]
    assert sorted(computed) == sorted(path.name for path in (out / "cells").iterdir())
    for path in out.glob("cells/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [row["epoch"] for row in rows if row["kind"] == "epoch"]
        assert epochs == list(range(len(epochs)))  # none was computed twice


def test_a_cell_that_is_another_process_s_is_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "size"
    config = StudyConfig(
        kind="data-size",
        data="digits",
        models=(MODEL,),
        labels=(40,),
        epochs=(1,),
        seeds=2,
        settings=SETTINGS,
    )
    study = open_study(config, out)
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
