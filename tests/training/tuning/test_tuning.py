"""What is trained, what stays as it was to the bit, what it costs, and whole fine-tuning runs with their
resumption.

The start is one small run on half of the digits; the references are its own weights and runs that nobody
disturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.training.digit_runs import rows, signal_after
from torch import nn

from tesela.core.errors import ConfigError, InterruptedRunError, WeightsError
from tesela.data.open import open_source
from tesela.layers.lora_config import LoraConfig
from tesela.models.bundle import load_bundle
from tesela.models.factory import create_model
from tesela.runs.folder import Run
from tesela.training.config import TrainConfig, layered
from tesela.training.run import resumed_config, train
from tesela.training.start import resize_view
from tesela.training.state.checkpoint import Checkpoints, read_checkpoint
from tesela.training.tuning import features
from tesela.training.tuning.tuning import adapt

FIXED: dict[str, Any] = {
    "batch_size": 16,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "log_steps": 4,
    "checkpoint_steps": 3,
    "tensorboard": False,
    "report": False,
}
NET = {"width": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the digits 0 to 4."""
    out = tmp_path_factory.mktemp("source") / "run"
    data = {"source": "digits", "classes": "0,1,2,3,4", "workers": 0}
    optim = {"name": "muon", "lr": 0.01}
    train(
        layered(
            FIXED,
            {"out": str(out), "data": data, "net": NET, "model": "vit_nano", "epochs": 6, "optim": optim},
        )
    )
    return out


def tuned(source: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run from ``source`` on the digits 5 to 9, few images each."""
    data = {"source": "digits", "classes": "5,6,7,8,9", "per_class": 20, "workers": 0}
    base = {
        "from": str(source),
        "data": data,
        "epochs": 3,
        "ema": {"decay": 0.9},
        "optim": {"lr": 3e-3},
        "out": str(out),
    }
    return layered(FIXED, base, changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What the bundle of a run holds."""
    found: dict[str, torch.Tensor] = safetensors.torch.load_file(run / "bundle" / "model.safetensors")
    return found


def fingerprint(run: Run) -> str:
    """SHA-256 over the last checkpoint, the rows and the bundle's weights."""
    last = max(run.checkpoints.glob("step-*.safetensors"))
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in (last, run.metrics, run.bundle / "model.safetensors"))
    ).hexdigest()


MODES: dict[str, dict[str, Any]] = {
    "all": {"optim": {"lr": 3e-3, "layer_decay": 0.75}},
    "unfreeze": {"tune_unfreeze": 1.0, "epochs": 4},
    "head": {"tune": "head", "augment": {"hflip": 0.5}, "tune_cache": "ram"},
    "head on disk": {"tune": "head", "augment": {"hflip": 0.5}, "tune_cache": "disk"},
    "head from images": {"tune": "head", "augment": {"crop_padding": 1, "mixup": 0.2}},
    "lora": {"tune": "lora", "lora": {"rank": 2, "dropout": 0.1}, "net": {"dropout": 0.1}},
    "bias": {"tune": "bias"},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_run_goes_on_to_the_same_bits(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """R5 for every way of tuning; reference: the run that nobody disturbed."""
    train(tuned(source, tmp_path / "whole", **MODES[mode]))
    run = Run(tmp_path / "cut")
    signal_after(monkeypatch, "loop.after_step", 8)
    with pytest.raises(InterruptedRunError):
        train(tuned(source, run.path, **MODES[mode]))
    monkeypatch.undo()
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(Run(tmp_path / "whole"))
    assert not run.features.exists()


@pytest.mark.parametrize(
    ("mode", "moved"), [("head", {"head"}), ("bias", {"bias", "head"}), ("lora", {"dense", "head"})]
)
def test_what_is_frozen_keeps_its_bits(source: Path, tmp_path: Path, mode: str, moved: set[str]) -> None:
    """Reference: the weights of the source; the head is of another class count and so is new."""
    answer = train(tuned(source, tmp_path / "run", tune=mode))
    before, after = weights(source), weights(tmp_path / "run")
    kinds = set()
    for name in before.keys() - {"head.linear.weight", "head.linear.bias"}:
        if not torch.equal(before[name], after[name]):
            kinds.add(
                "bias"
                if name.endswith("bias")
                else "dense"
                if "qkv" in name or "out" in name or "mlp" in name
                else name
            )
    assert kinds | {"head"} == moved
    model: Any = load_bundle(source / "bundle")[0]
    model.reset_head(5)
    expected = {
        "head": 5 * 17,
        "bias": 80 + sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias")),
    }
    expected["lora"] = 5 * 17 + 8 * sum(
        m.in_features + m.out_features for m in model.backbone.blocks.modules() if isinstance(m, nn.Linear)
    )
    assert answer.trainable == expected[mode]
    assert answer.parameters == sum(p.numel() for p in model.parameters())


def test_a_checkpoint_holds_what_changes_and_the_digest_of_the_rest(source: Path, tmp_path: Path) -> None:
    """Reference: the names by hand; a source that was exchanged is refused on resumption, with the reason."""
    import shutil

    other = tmp_path / "source"
    shutil.copytree(source, other)
    run = Run(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        signal_after(patch, "loop.after_step", 5)
        with pytest.raises(InterruptedRunError):
            train(tuned(other, run.path, tune="head"))
    state = read_checkpoint(Checkpoints(run.checkpoints).path(5))
    assert set(state["model"]) == set(state["ema"]["tensors"]) == {"head.linear.weight", "head.linear.bias"}
    assert len(state["base"]) == 64
    assert sum(path.stat().st_size for path in run.checkpoints.iterdir()) < 40_000
    again = tmp_path / "again"
    train(
        layered(
            FIXED,
            {
                "out": str(again),
                "data": {"source": "digits", "classes": "0,1,2,3,4"},
                "net": NET,
                "model": "vit_nano",
                "epochs": 1,
            },
        )
    )
    shutil.rmtree(other)
    shutil.copytree(again, other)
    with pytest.raises(WeightsError, match="have changed since"):
        train(resumed_config(run.path), resume=True)


@pytest.mark.parametrize("place", ["ram", "disk"])
@pytest.mark.parametrize("count", [3, 9])
def test_computing_features_can_be_broken_off(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, count: int
) -> None:
    """Within the training split's batches (7) or the validation split's.

    Reference: the run that nobody disturbed.

    On disk the batches that were noted are not computed again.
    """
    same: dict[str, Any] = {"tune": "head", "tune_cache": place, "augment": {"hflip": 0.5}, "epochs": 1}
    train(tuned(source, tmp_path / "whole", **same))
    run, done = Run(tmp_path / "cut"), [0]

    def act(name: str) -> None:
        done[0] += name == "features.after_batch"
        if done[0] == count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(features, "failpoint", act)
    monkeypatch.setattr(features, "NOTE_SECONDS", 0.0)
    with pytest.raises(InterruptedRunError, match="before the first step was saved"):
        train(tuned(source, run.path, **same))
    first, done[0] = done[0], count
    batches = sum(len(json.loads(file.read_text())["shape"]) > 0 for file in run.features.glob("*.json"))
    assert (batches > 0) == (place == "disk")
    train(resumed_config(run.path), resume=True)
    again = done[0] - count
    assert fingerprint(run) == fingerprint(Run(tmp_path / "whole"))
    total = -(-100 // 16) + -(
        -len(open_source("digits", config=resumed_config(run.path).data).splits["val"]) // 16
    )
    assert again == (total if place == "ram" else total - first + 1)


def test_a_damaged_file_of_features_is_made_anew(source: Path, tmp_path: Path) -> None:
    """A flipped bit in a complete file is found by its digest.

    Reference: features that were computed in one go.
    """
    file = tmp_path / "features.bin"
    store = features.Store(file, (1, 4, 3), key="k")
    store.values[:] = 1.5
    store.finish(2)
    assert features.Store(file, (1, 4, 3), key="k").complete
    assert not features.Store(file, (2, 4, 3), key="k").complete
    store = features.Store(file, (1, 4, 3), key="k")
    store.values[:] = 1.5
    store.finish(2)
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    assert features.Store(file, (1, 4, 3), key="k").done == 0
    assert not features.Store(file, (1, 4, 3), key="other").complete


def test_kept_features_train_as_images_do(source: Path, tmp_path: Path) -> None:
    """Reference: the same run without the cache, flips included.

    Losses equal up to rounding, the same predictions.
    """
    kept, passed = tmp_path / "kept", tmp_path / "passed"
    same: dict[str, Any] = {"tune": "head", "augment": {"hflip": 0.5, "vflip": 0.3}, "label_smoothing": 0.1}
    train(tuned(source, kept, **same))
    train(tuned(source, passed, tune_cache="none", **same))
    assert json.loads(Run(kept).choices.read_text())["features"] == "ram"
    assert json.loads(Run(passed).choices.read_text())["features"] == ""
    for left, right in zip(rows(Run(kept), "epoch"), rows(Run(passed), "epoch"), strict=True):
        assert left["train_loss"] == pytest.approx(right["train_loss"], abs=1e-5)
        assert left["val_accuracy"] == right["val_accuracy"]
    for name, tensor in weights(kept).items():
        torch.testing.assert_close(tensor, weights(passed)[name], rtol=1e-4, atol=1e-5)


def test_fine_tuning_beats_the_head_alone_and_both_beat_chance(source: Path, tmp_path: Path) -> None:
    """Chance is 0.2."""
    scores = {}
    for mode in ("all", "head", "lora", "bias"):
        found = train(
            tuned(source, tmp_path / mode, tune=mode, epochs=20, optim={"lr": 1e-2, "weight_decay": 0.0})
        )
        assert found.accuracy is not None
        scores[mode] = found.accuracy
    assert scores["all"] > scores["head"] > 0.35
    assert scores["lora"] > 0.35
    assert scores["bias"] > 0.35


def test_the_lower_layers_join_one_group_after_the_other(source: Path, tmp_path: Path) -> None:
    """Groups of a model of two blocks: stem, block, block, top.

    After two epochs of one each the stem is as it was.
    """
    train(tuned(source, tmp_path / "run", tune_unfreeze=1.0, epochs=2, ema={"decay": 0.0}))
    before, after = weights(source), weights(tmp_path / "run")
    same = {
        name
        for name in before
        if before[name].shape == after[name].shape and torch.equal(before[name], after[name])
    }
    assert {name.split(".")[0] if not name.startswith("blocks") else name[:8] for name in same} >= {
        "patches",
        "positions",
        "blocks.0",
    }
    assert not {name for name in same if name.startswith("blocks.1") and name.endswith("weight")}


def make_model(**overrides: Any) -> Any:
    return create_model("vit_nano", num_classes=3, seed=0, width=16, depth=2, heads=2, **overrides)


class Statistics(nn.Module):
    """A body with BatchNorm and dropout, as a ResNet has them, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def head_names(self) -> set[str]:
        """The last layer."""
        return {"head.weight", "head.bias"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = self.head(self.body(images))
        return logits


def test_another_image_size_interpolates_positions_or_draws_them_anew(source: Path, tmp_path: Path) -> None:
    """Reference: torch's bicubic interpolation of the source's table.

    The view of the bundle has the new size and the old normalisation.
    """
    config = tuned(
        source,
        tmp_path / "run",
        image_size=12,
        optim={"lr": 1e-9, "weight_decay": 0.0},
        ema={"decay": 0.0},
        epochs=1,
    )
    train(config)
    table = weights(source)["positions.table"]
    side = round((table.shape[1] - 1) ** 0.5)
    image = table[:, 1:].transpose(1, 2).reshape(1, 16, side, side)
    new = 12 * side // 8
    expected = torch.nn.functional.interpolate(image, (new, new), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(
        weights(tmp_path / "run")["positions.table"][:, 1:], expected, atol=1e-6, rtol=1e-5
    )
    _, old = load_bundle(source / "bundle")
    found, info = load_bundle(tmp_path / "run" / "bundle")
    model: Any = found
    assert (info.image.size, info.image.mean, info.image.std) == ((12, 12), old.image.mean, old.image.std)
    assert info.labels == ["5", "6", "7", "8", "9"]
    drawn: Any = load_bundle(source / "bundle")[0]
    resize_view(drawn, (12, 12), interpolate=False, seed=3)
    again: Any = load_bundle(source / "bundle")[0]
    resize_view(again, (12, 12), interpolate=False, seed=3)
    assert torch.equal(drawn.backbone.positions.table, again.backbone.positions.table)
    assert drawn.backbone.positions.table.shape == model.backbone.positions.table.shape
    assert float(drawn.backbone.positions.table.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert torch.equal(drawn.backbone.patches.weight, weights(source)["patches.weight"])


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    """Each with what to do instead."""
    with pytest.raises(ConfigError, match="needs a trained model"):
        train(layered(FIXED, {"out": str(tmp_path / "a"), "data": {"source": "digits"}, "tune": "head"}))
    with pytest.raises(ConfigError, match=r"net\.depth cannot be changed"):
        train(tuned(source, tmp_path / "b", net={"depth": 3}))
    with pytest.raises(ConfigError, match="at most flipped"):
        train(tuned(source, tmp_path / "c", tune="head", tune_cache="ram", augment={"mixup": 0.2}))
    with pytest.raises(ConfigError, match="nothing to unfreeze"):
        tuned(source, tmp_path / "d", tune="head", tune_unfreeze=1.0)
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        tuned(source, tmp_path / "e", tune="lora", lora={"targets": "qkv,head"})
    with pytest.raises(ConfigError, match="no layers"):
        adapt(Statistics(), LoraConfig(), seed=0)


def test_dropouts_of_a_loaded_model_can_be_set(source: Path, tmp_path: Path) -> None:
    """The bundle says so, and the weights began as the source's."""
    train(tuned(source, tmp_path / "run", net={"drop_path": 0.1, "dropout": 0.2}, epochs=1))
    _, info = load_bundle(tmp_path / "run" / "bundle")
    assert (info.model["drop_path"], info.model["dropout"]) == (0.1, 0.2)
