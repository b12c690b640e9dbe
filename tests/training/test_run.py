"""Whole runs on scikit-learn's digits: what they leave behind, that they repeat bit for bit, and how they stop and go on.

The reference is always a run that nobody disturbed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tesela.core import files
from tesela.core.config import read_yaml
from tesela.core.errors import (
    ConfigError,
    DataError,
    DivergedError,
    InterruptedRunError,
    StorageError,
    UsageError,
    WeightsError,
)
from tesela.core.failpoint import failpoint
from tesela.runs.folder import Run
from tesela.training import loop
from tesela.training.config import TrainConfig, layered
from tesela.training.run import resumed_config, train
from tesela.training.state.checkpoint import Checkpoints, read_checkpoint

TINY: dict[str, Any] = {
    "data": {"source": "digits", "subset": 200, "workers": 0},
    "augment": {"crop_padding": 1, "mixup": 0.2},
    "optim": {"lr": 3e-3},
    "ema": {"decay": 0.9},
    "model": "vit_nano",
    "net": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1},
    "epochs": 3,
    "batch_size": 16,
    "accumulate": 2,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "log_steps": 4,
    "checkpoint_steps": 4,
    "tensorboard": False,
    "report": False,
}


def tiny(out: Path, **changes: Any) -> TrainConfig:
    """The small run in ``out``, with changes; an empty ``net`` leaves the model as it is."""
    base = {key: value for key, value in TINY.items() if key != "net" or changes.get("net") != {}}
    return layered(base, {"out": str(out)}, changes)


def fingerprint(run: Run) -> str:
    """SHA-256 over the last checkpoint (weights, optimizer, average, position), the rows and the bundle's weights."""
    last = max(run.checkpoints.glob("step-*.safetensors"))
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in (last, run.metrics, run.bundle / "model.safetensors"))
    ).hexdigest()


def rows(run: Run, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in metrics.jsonl."""
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def signal_after(monkeypatch: pytest.MonkeyPatch, place: str, count: int) -> None:
    """SIGTERM to this process the ``count``-th time that the loop reaches a failpoint."""
    seen = 0

    def act(name: str) -> None:
        nonlocal seen
        seen += name == place
        if name == place and seen == count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "failpoint", act)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody disturbed."""
    run = Run(tmp_path_factory.mktemp("runs") / "reference")
    train(tiny(run.path))
    return run


def test_the_folder_holds_what_it_should(reference: Run) -> None:
    """cli.md: configuration, bundle with card, checkpoints, rows; 6 steps per epoch (200 // 16 // 2) for 3 epochs."""
    assert read_yaml(reference.config)["optim"]["lr"] == 3e-3
    assert {path.name for path in reference.bundle.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    assert [row["step"] for row in rows(reference, "step")] == [4, 8, 12, 16, 18]
    assert [(row["epoch"], row["step"]) for row in rows(reference, "epoch")] == [(0, 6), (1, 12), (2, 18)]
    assert Checkpoints(reference.checkpoints).steps() == [16, 18]
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(rows(reference, "epoch")[0])
    result = json.loads(reference.result.read_text())
    evaluation = json.loads(reference.evaluation.read_text())
    assert result["accuracy"] == evaluation["accuracy"]
    assert result["steps"] == 18
    assert f"{result['parameters']:,} parameters" in (reference.bundle / "README.md").read_text()


def test_the_bundle_is_the_moving_average(reference: Run) -> None:
    """Reference: the average in the last checkpoint."""
    import safetensors.torch

    state = read_checkpoint(Checkpoints(reference.checkpoints).path(18))
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


@pytest.mark.parametrize("count", [1, 3, 6, 7, 13, 18])
def test_sigterm_then_resume_has_the_same_bits(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """R5: within, at the end of and after an epoch, and after the last step; only --out is needed to go on."""
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
    with pytest.raises(InterruptedRunError, match="after step 12"):
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
    assert train(changed, resume=True).steps == 18


def test_nan_stops_with_step_and_cause_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A rate of 1e30 breaks the weights in the first step; the cause is named and no broken state is saved."""
    run = Run(tmp_path / "run")
    with pytest.raises(
        DivergedError,
        match=r"the loss became \w+ at step \d+ \(epoch 0, learning rate .*first tensor that is not finite is",
    ):
        train(
            tiny(
                run.path,
                optim={"lr": 1e30, "name": "sgd"},
                schedule={"warmup": 0},
                clip_norm=0,
                checkpoint_steps=1,
            )
        )
    for step in Checkpoints(run.checkpoints).steps():
        state = read_checkpoint(Checkpoints(run.checkpoints).path(step))
        assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())


def test_early_stopping_ships_the_best_weights(tmp_path: Path) -> None:
    """A rate that ruins the model after the warm-up: the run stops, and the bundle is of the best epoch, not the last."""
    import safetensors.torch

    run = Run(tmp_path / "run")
    answer = train(
        tiny(run.path, epochs=30, patience=2, ema={"decay": 0.0}, optim={"lr": 1.0}, schedule={"warmup": 4.0})
    )
    scores = [row["val_accuracy"] for row in rows(run, "epoch")]
    best = scores.index(max(scores))
    assert len(scores) == best + 3
    assert answer.steps == 6 * len(scores)
    kept = read_checkpoint(run.checkpoints / "best.safetensors")
    assert kept["step"] == 6 * (best + 1)
    shipped = safetensors.torch.load_file(run.bundle / "model.safetensors")
    assert all(torch.equal(shipped[name], kept["model"][name]) for name in shipped)


def test_it_learns(tmp_path: Path) -> None:
    """Loss falls and accuracy on digits that were not trained on is far above chance (0.1)."""
    plain = {
        "accumulate": 1,
        "net": {},
        "augment": {"mixup": 0.0, "crop_padding": 0},
        "data": {"subset": 800},
        "ema": {"decay": 0.0},
    }
    answer = train(tiny(tmp_path / "run", epochs=3, optim={"name": "muon", "lr": 0.01}, **plain))
    losses = [row["train_loss"] for row in rows(Run(tmp_path / "run"), "epoch")]
    assert losses[-1] < 0.5 * losses[0]
    assert answer.accuracy is not None
    assert answer.accuracy > 0.8


def test_choices_are_measured_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of precision and kernel are timed, the fastest within the stated margins is taken, and resuming keeps it."""
    run = Run(tmp_path / "run")
    signal_after(monkeypatch, "loop.after_step", 2)
    with pytest.raises(InterruptedRunError):
        train(tiny(run.path, precision="auto", attention="auto", batch_size="auto"))
    monkeypatch.undo()
    chosen = run.choices.read_text()
    measured = {(row[0], row[1]): row[2] for row in json.loads(chosen)["measured"]}
    assert set(measured) == {(p, a) for p in ("fp32", "bf16") for a in ("fused", "matmul")} | {
        ("bf16", "lean")
    }
    pair = json.loads(chosen)["precision"], json.loads(chosen)["attention"]
    assert measured[pair] <= min(measured.values()) / 0.85
    assert json.loads(chosen)["batch_size"] == 32
    train(resumed_config(run.path), resume=True)
    assert run.choices.read_text() == chosen


def test_minutes_bound_the_run(tmp_path: Path) -> None:
    """Everything, evaluation included, ends within the budget, and most of it is used."""
    config = layered(TINY, {"out": str(tmp_path / "run"), "minutes": 0.15})
    assert config.epochs is None
    answer = train(config)
    assert answer.seconds <= 0.15 * 60 * 1.1
    assert answer.seconds >= 0.15 * 60 * 0.4
    assert json.loads(Run(tmp_path / "run").choices.read_text())["budget"][-1][1] == answer.steps


def fail_on(operation: str, code: int) -> Callable[[str], None]:
    """Let every call of one kind fail."""

    def act(name: str) -> None:
        if name == operation:
            raise OSError(code, os.strerror(code))

    return act


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: the disk fills up in the middle; after space was freed the run ends with the same bits."""
    run = Run(tmp_path / "run")
    seen = [0]

    def act(name: str) -> None:
        seen[0] += 1
        if seen[0] == 7:
            monkeypatch.setattr(files, "before_io", fail_on("write", errno.ENOSPC))
        failpoint(name)

    monkeypatch.setattr(loop, "failpoint", act)
    with pytest.raises(StorageError, match="bytes needed"):
        train(tiny(run.path))
    monkeypatch.undo()
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(reference)


def test_fine_tuning_starts_from_a_bundle(reference: Run, tmp_path: Path) -> None:
    """--from RUN: the first validation is that of a trained model, far above a random one's loss; other classes get a new head."""
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
