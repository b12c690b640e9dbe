"""Whole runs on scikit-learn's digits.

What they leave behind, that they repeat bit for bit, and how they stop and go on.

The reference is always a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from tests.training.digit_runs import TINY, fingerprint, rows, signal_after, tiny

from tesela.core.config import read_yaml
from tesela.core.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    UsageError,
    WeightsError,
)
from tesela.runs.folder import Run
from tesela.training import loop
from tesela.training.config import TrainConfig, layered
from tesela.training.run import resumed_config, train
from tesela.training.state.checkpoint import Checkpoints, read_checkpoint


def test_the_folder_holds_what_it_should(reference: Run) -> None:
    """cli.md: configuration, bundle with card, checkpoints, rows.

    200 images are 13 batches of 16, the last of 8, and 7 steps of two batches, the last of one; 3 epochs.
    """
    assert read_yaml(reference.config)["optim"]["lr"] == 3e-3
    assert {path.name for path in reference.bundle.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    assert [row["step"] for row in rows(reference, "step")] == [4, 8, 12, 16, 20, 21]
    assert [(row["epoch"], row["step"]) for row in rows(reference, "epoch")] == [(0, 7), (1, 14), (2, 21)]
    assert Checkpoints(reference.checkpoints).steps() == [20, 21]
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(rows(reference, "epoch")[0])
    result = json.loads(reference.result.read_text())
    evaluation = json.loads(reference.evaluation.read_text())
    assert result["accuracy"] == evaluation["accuracy"]
    assert result["steps"] == 21
    assert f"{result['parameters']:,} parameters" in (reference.bundle / "README.md").read_text()


def test_the_bundle_is_the_moving_average(reference: Run) -> None:
    """Reference: the average in the last checkpoint."""
    import safetensors.torch

    state = read_checkpoint(Checkpoints(reference.checkpoints).path(21))
    shipped = safetensors.torch.load_file(reference.bundle / "model.safetensors")
    average = state["ema"]["tensors"]
    assert set(shipped) == set(average)
    assert all(torch.equal(shipped[name], average[name]) for name in shipped)
    assert any(not torch.equal(shipped[name], state["model"][name]) for name in shipped)


def test_a_second_run_has_the_same_bits_and_another_seed_has_others(reference: Run, tmp_path: Path) -> None:
    """Golden curve: metrics.jsonl, checkpoint and bundle are equal byte for byte."""
    train(tiny(tmp_path / "again"))
    assert fingerprint(Run(tmp_path / "again")) == fingerprint(reference)
    train(tiny(tmp_path / "other", seed=1))
    assert Run(tmp_path / "other").metrics.read_bytes() != reference.metrics.read_bytes()


def test_the_recorded_configuration_is_replayable(reference: Run, tmp_path: Path) -> None:
    """config.yaml with another --out gives the same bits."""
    train(layered(read_yaml(reference.config), {"out": str(tmp_path / "replay")}))
    assert fingerprint(Run(tmp_path / "replay")) == fingerprint(reference)


@pytest.mark.parametrize("count", [1, 3, 7, 8, 14, 21])
def test_sigterm_then_resume_has_the_same_bits(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """R5: within, at the end of and after an epoch, and after the last step.

    Only --out is needed to go on.
    """
    run = Run(tmp_path / "run")
    signal_after(monkeypatch, "loop.after_step", count)
    with pytest.raises(InterruptedRunError, match=f"stopped by SIGTERM after step {count}") as caught:
        train(tiny(run.path))
    assert caught.value.exit_code == 3
    assert f"--out {run.path} --resume" in caught.value.hint
    monkeypatch.undo()
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(reference)


def test_sigterm_during_validation_then_resume(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation is broken off at once, the step before it is saved, and the row is written once."""
    run, seen = Run(tmp_path / "run"), [0]
    real = loop.Loop._scores

    def scores(self: loop.Loop) -> dict[str, float]:
        seen[0] += 1
        if seen[0] == 2:
            with self.stop.interruptible():
                os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    monkeypatch.setattr(loop.Loop, "_scores", scores)
    with pytest.raises(InterruptedRunError, match="after step 14"):
        train(tiny(run.path))
    assert len(rows(run, "epoch")) == 1
    monkeypatch.undo()
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(reference)


def test_a_damaged_newest_checkpoint_costs_steps_not_bits(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: one bit flips in the newest of two; the older one is used, and the end is the same."""
    run = Run(tmp_path / "run")
    signal_after(monkeypatch, "loop.after_step", 9)
    with pytest.raises(InterruptedRunError):
        train(tiny(run.path))
    monkeypatch.undo()
    newest = Checkpoints(run.checkpoints).path(9)
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(reference)


def test_resuming_a_complete_run_changes_nothing(reference: Run) -> None:
    """It reports what was reached."""
    before = {
        path: path.stat().st_mtime_ns
        for path in reference.path.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    answer = train(resumed_config(reference.path), resume=True)
    assert answer.mapping() == json.loads(reference.result.read_text())
    assert before == {
        path: path.stat().st_mtime_ns
        for path in reference.path.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_bits_do_not_depend_on_workers(reference: Run, tmp_path: Path, workers: int) -> None:
    """R2: worker processes instead of the memory cache."""
    train(tiny(tmp_path / "run", data={"workers": workers, "cache": "none"}))
    assert fingerprint(Run(tmp_path / "run")) == fingerprint(reference)


def test_a_refused_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """The same command, mended, can be given again without --resume."""
    with pytest.raises(UsageError, match="there is no data"):
        train(tiny(tmp_path / "run", data={"source": str(tmp_path / "none")}))
    with pytest.raises(UsageError, match="unknown model"):
        train(tiny(tmp_path / "run", model="vit_nanno"))
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_listed_and_too_many_are_refused(tmp_path: Path) -> None:
    """R6: 1 of 160 broken files is left out, told and listed; 8 of them stop the run before it begins."""
    from PIL import Image

    photos = tmp_path / "photos"
    for place, label in enumerate(("dark", "light")):
        (photos / label).mkdir(parents=True)
        for index in range(80):
            Image.new("L", (8, 8), 200 * place + index % 40).save(photos / label / f"{index:02d}.png")
    (photos / "dark" / "07.png").write_bytes(b"no image")
    answer = train(tiny(tmp_path / "run", data={"source": str(photos), "subset": None}, epochs=1))
    assert answer.unreadable == 1
    assert [Path(row["name"]).name for row in json.loads(Run(tmp_path / "run").unreadable.read_text())] == [
        "07.png"
    ]
    for index in range(10, 17):
        (photos / "dark" / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="unreadable"):
        train(tiny(tmp_path / "refused", data={"source": str(photos), "subset": None}, epochs=1))
    assert not (tmp_path / "refused").exists()


def test_what_cannot_be_resumed(reference: Run, tmp_path: Path) -> None:
    """Nothing there; something else there; other settings: each an error that says the cure."""
    with pytest.raises(UsageError, match="no run to resume"):
        train(tiny(tmp_path / "nothing"), resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        train(tiny(reference.path))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(tiny(tmp_path / "letters"))
    with pytest.raises(ConfigError, match=r"other settings: epochs \(3 to 4\), optim\.lr"):
        train(resumed_config(reference.path, {"epochs": 4, "optim.lr": 0.1}), resume=True)


def test_workers_and_saving_may_change_on_resume(reference: Run) -> None:
    """They do not touch the bits."""
    changed = resumed_config(reference.path, {"data.workers": 2, "checkpoint_steps": 1})
    assert train(changed, resume=True).steps == 21


def test_fine_tuning_starts_from_a_bundle(reference: Run, tmp_path: Path) -> None:
    """--from RUN: the first validation is that of a trained model, far above a random one's loss.

    Other classes get a new head.
    """
    train(from_run(reference, tmp_path))
    before = rows(reference, "epoch")[-1]["val_loss"]
    assert rows(Run(tmp_path / "run"), "epoch")[0]["val_loss"] == pytest.approx(before, rel=1e-3)


def from_run(reference: Run, folder: Path) -> TrainConfig:
    """One epoch at a rate that changes nothing, from the reference's bundle."""
    plain = {key: value for key, value in TINY.items() if key != "net"}
    return layered(
        plain,
        {
            "from": str(reference.path),
            "epochs": 1,
            "optim.lr": 1e-9,
            "ema.decay": 0.0,
            "out": str(folder / "run"),
        },
    )


def test_a_broken_bundle_to_start_from(reference: Run, tmp_path: Path) -> None:
    """Cut-off weights are refused before training."""
    import shutil

    shutil.copytree(reference.bundle, tmp_path / "bundle")
    weights = tmp_path / "bundle" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    plain = {key: value for key, value in TINY.items() if key != "net"}
    with pytest.raises(WeightsError):
        train(layered(plain, {"from": str(tmp_path / "bundle"), "out": str(tmp_path / "run")}))
