"""Studies on real digits: each cell runs once, as ``tesela train`` would run it; bad input is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.pictures import make_pictures

import tesela as ts
from tesela.cli.main import run
from tesela.core.errors import ConfigError
from tesela.core.files import read_json
from tesela.training.config import layered
from tesela.training.run import train

TINY = ("precision=fp32", "attention=fused", "threads=1")
GRID = ("--models", "vit_nano:width=16:depth=1:heads=2", "--labels", "40,80", "--epochs", "1", "--seeds", "1")
CELL = "vit_nano_width=16_depth=1_heads=2"


def studied(words: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
    assert run(["study", *words, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 2) -> str:
    assert run(["study", *words]) == code
    text = capsys.readouterr().err
    assert text.count("\n") == 2 and "hint: " in text
    return text


def test_nothing_runs_twice_and_a_larger_grid_computes_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "size"
    words = ["data-size", "digits", *GRID, "--out", str(out), *TINY]
    first = studied(words, capsys)
    assert (first["cells"], first["finished"], first["failed"]) == (2, 2, [])
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*") if path.is_file()}
    again = studied(words, capsys)
    assert again["means"] == first["means"]
    from_python = ts.study(
        "data-size",
        "digits",
        models=GRID[1],
        labels=(40, 80),
        epochs=1,
        seeds=1,
        out=out,
        settings=dict(setting.split("=") for setting in TINY),
        quiet=True,
    )
    assert from_python.mapping() == again and from_python.folder == str(out)
    assert capsys.readouterr() == ("", "")
    words[words.index("--seeds") + 1] = "2"
    more = studied(words, capsys)
    assert (more["cells"], more["finished"]) == (4, 4)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    scores = [
        read_json(out / "cells" / f"{CELL}-80-seed{seed}" / "result.json")["accuracy"] for seed in (0, 1)
    ]
    row = next(row for row in more["means"] if row["x"] == 80)
    assert row["mean"] == pytest.approx(sum(scores) / 2) and row["count"] == 2
    counts = [
        read_json(out / "cells" / f"{CELL}-{n}-seed0" / "choices.json")["images"]["train"] for n in (40, 80)
    ]
    assert counts == [400, 800]
    passes = [read_json(out / "cells" / f"{CELL}-{n}-seed0" / "result.json")["epochs"] for n in (40, 80)]
    assert passes[0] == pytest.approx(2 * passes[1], abs=1)  # fewer images are passed over more often
    page = (out / "study.html").read_text()
    assert "<svg" in page and not re.search(r'(src|href)="http', page) and "<script" not in page
    assert f"{100 * row['mean']:.1f} %" in page


def test_a_killed_study_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Reference: the same cell by itself, never killed."""
    out = tmp_path / "killed"
    words = [sys.executable, "-m", "tesela", "study", "data-size", "digits", *GRID, "--out", str(out), *TINY]
    words.append("checkpoint_steps=1")
    killing = {**os.environ, "TESELA_FAILPOINT": "loop.after_step=kill@4"}
    assert subprocess.run(words, env=killing, capture_output=True, check=False).returncode == -9
    cell = out / "cells" / f"{CELL}-40-seed0"
    assert (cell / "config.yaml").is_file() and not (cell / "result.json").exists()
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    record = read_json(out / "study.json")["cells"][cell.name]
    settings = {name: value for name, value in record.items() if name != "after"}
    train(layered(settings, {"out": str(tmp_path / "alone")}))
    for name in ("metrics.jsonl", "bundle/model.safetensors"):
        assert (cell / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_few_labels_fine_tunes_what_it_pre_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, models = tmp_path / "few", "vit_nano:width=16:depth=1:heads=2,resnet20_small"
    words = ["few-labels", "digits", "--models", models, "--labels", "20", "--minutes", "0.1", "--seeds", "1"]
    found = studied([*words, "--out", str(out), *TINY], capsys)
    assert found["finished"] == 4
    cells = {path.name: path for path in (out / "cells").iterdir()}
    told = read_json(cells["pre-trained-20-seed0"] / "bundle" / "config.json")["provenance"]
    assert Path(told["from"]).resolve().is_relative_to(cells["pretraining-seed0"].resolve())
    images = {name: read_json(path / "choices.json")["images"] for name, path in cells.items()}
    assert images["pretraining-seed0"]["train"] > 1400
    assert {images[name]["train"] for name in cells if name != "pretraining-seed0"} == {200}
    assert len({images[name]["test"] for name in cells}) == 1
    gain = next(row for row in found["gains"] if row["above"] == "scratch")
    scores = {name: read_json(path / "result.json").get("accuracy") for name, path in cells.items()}
    assert gain["mean"] == pytest.approx(scores["pre-trained-20-seed0"] - scores["scratch-20-seed0"])


def test_a_signal_ends_a_study_resumably(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"
    words = ["data-size", "digits", *GRID, "--out", str(out), *TINY]
    monkeypatch.setattr("tesela.core.failpoint._reached", {})
    monkeypatch.setenv("TESELA_FAILPOINT", "loop.after_step=term@3")
    text = refused(words, capsys, code=3)
    assert "interrupted in cell" in text and "SIGTERM after step 3" in text
    assert "give the same command again" in text
    monkeypatch.delenv("TESELA_FAILPOINT")
    assert studied(words, capsys)["finished"] == 2


def test_a_diverged_cell_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "wild"
    words = ["data-size", "digits", *GRID, "--out", str(out), *TINY, "optim.lr=1e30", "clip_norm=0"]
    found = studied(words, capsys, code=1)
    assert found["failed"] == [f"{CELL}-40-seed0", f"{CELL}-80-seed0"] and found["finished"] == 0
    assert f"{CELL}-40-seed0" in (out / "study.html").read_text()


def test_a_dry_run_plans_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = studied(
        [
            "few-labels",
            "digits",
            "--minutes",
            "3",
            "--labels",
            "2,5",
            "--out",
            str(tmp_path / "x"),
            "--dry-run",
        ],
        capsys,
    )
    assert found["cells"] == 3 * (1 + 2 * 3)
    by_cell = {row["cell"]: row["seconds"] for row in found["planned"]}
    assert by_cell["pretraining-seed0"] + by_cell["pre-trained-2-seed0"] == by_cell["scratch-2-seed0"] == 180
    assert not (tmp_path / "x").exists()


def test_another_grid_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "size")
    words = ["data-size", "digits", *GRID, "--out", out, *TINY]
    studied(words, capsys)
    assert "optim.lr (None to 0.01)" in refused([*words, "optim.lr=0.01"], capsys)
    longer = [*words]
    longer[longer.index("--epochs") + 1] = "2"
    assert "epochs (" in refused(longer, capsys)
    assert "holds a study data-size, not positions" in refused(
        ["positions", "digits", "--models", "vit_nano", "--out", out], capsys
    )
    data = make_pictures(tmp_path / "photos", {"a": 110, "b": 110})
    assert "is of digits, not" in refused(["data-size", str(data), *GRID, "--out", out, *TINY], capsys)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert "is not empty" in refused([*words[:-5], "--out", str(tmp_path / "full")], capsys)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["size", "digits"], "unknown study 'size'"),
        (["data-size", "digits", "--models", "vitt"], "unknown model 'vitt'"),
        (["data-size", "digits", "--models", "vit:depht=2"], "depht"),
        (["data-size", "digits", "--models", "vit:depth"], "is no model with settings"),
        (["data-size", "digits", "--labels", "10,1000"], "fewer than 1,000 labels"),
        (["data-size", "digits", "--labels", "ten"], "--labels takes numbers"),
        (["data-size", "digits", "--labels", "0,5"], "labels must be above 0"),
        (["data-size", "digits", "--labels", "5,5"], "labels names 5 twice"),
        (["data-size", "digits", "--seeds", "0"], "seeds must be 1 or more"),
        (["data-size", "digits", "--first-seed=-1"], "first_seed must be 0 or more"),
        (["data-size", "digits", "--epochs", "1,2"], "takes one training length"),
        (["data-size", "digits", "--epochs", "1", "--minutes", "1"], "exclude one another"),
        (["data-size", "digits", "optim.lrr=1"], "unknown option optim.lrr"),
        (["data-size", "digits", "optim.lr=-1"], "optim.lr must be above 0"),
        (["data-size", "digits", "somewhere"], "is no setting"),
        (["data-size", "digits", "seed=3"], "seeds of its own"),
        (["data-size", "digits", "data.per_class=3"], "set by the study"),
        (["data-size", "nowhere"], "there is no data at nowhere"),
        (["few-labels", "digits", "--epochs", "3"], "which epochs are not"),
        (["few-labels", "digits", "--models", "vit"], "a transformer and a CNN"),
        (["few-labels", "digits", "--pretrain-share", "1"], "between 0 and 1"),
        (["positions", "digits", "--models", "vit,cct"], "of one model"),
        (["positions", "digits", "--models", "cnn"], "has no positions"),
        (["claims", "digits", "--models", "vit"], "its models are fixed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "_".join(value),
)
def test_bad_input_is_refused_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([*words, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


def test_masks_are_for_claims_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for kind in ("images", "masks"):
        (tmp_path / "scenes" / kind).mkdir(parents=True)
        for number in range(40):
            picture = Image.new("L" if kind == "masks" else "RGB", (16, 16))
            picture.paste(1 if kind == "masks" else (number, 9, 9), (0, 0, 8, 8))
            picture.save(tmp_path / "scenes" / kind / f"{number}.png")
    (tmp_path / "scenes" / "classes.csv").write_text("value,name\n0,ground\n1,box\n")
    data = str(tmp_path / "scenes")
    assert "needs one label for each image" in refused(["data-size", data], capsys, code=1)
    planned = studied(["claims", data, "--seeds", "1", "--minutes", "3", "--dry-run"], capsys)
    seconds = {row["cell"]: row["seconds"] for row in planned["planned"]}
    assert seconds["plain_ViT-seed0"] == 180 and seconds["more_epochs-seed0"] == 360


def test_a_study_from_python_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ts.study("data-size", "digits", epochs=1, minutes=1, out=tmp_path / "none")
    assert "exclude one another" in caught.value.message
    with pytest.raises(ConfigError):
        ts.study("data-size", "digits", labels=40, settings={"no_such": 1}, out=tmp_path / "none")
    assert not list(tmp_path.iterdir())
