"""Against transformers, through files, in both directions.

Logits to 1e-5 at the model's size and others, bytes of every tensor.

Odd: transformers interpolates its positions for every size that is not the model's own square, and so do we.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.parity.huggingface_models import MODELS, close, result, saved

import tesela as ts
from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.cli.main import run
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

SIZES = [(24, 24), (24, 40), (48, 16), (40, 40)]


@pytest.mark.parametrize("name", MODELS)
def test_we_compute_what_transformers_computes(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "hf")
    ours: Any
    ours, info = open_model(tmp_path / "hf")
    bare = not hasattr(theirs, "num_labels") or "bare" in name
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            found = ours.features(images).tokens if bare else ours(images)
        close(found, result(theirs, images))
    assert info.provenance["source"]["head"] is not bare
    assert info.num_classes == (1 if bare else 5)


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    """From transformers through a bundle back to transformers, which loads it without a word and computes
    the same."""
    theirs = saved(name, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    report = export_huggingface(tmp_path / "bundle", tmp_path / "back")
    before, after = (
        load_file(tmp_path / "hf/model.safetensors"),
        load_file(tmp_path / "back/model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
    assert report.architecture == type(theirs).__name__
    again, told = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = torch.randn(1, 3, 24, 24)
    close(result(again.eval(), images), result(theirs, images))


@pytest.mark.parametrize(
    ("model", "overrides", "kind"),
    [
        ("vit_lite7_p4", {"depth": 2, "patch_mode": "conv", "norm_eps": 1e-5}, "ViTForImageClassification"),
        ("vit_lite7_p4", {"depth": 1, "image_size": (32, 48), "patch_size": (4, 8)}, None),
        (
            "vit_lite7_p4",
            {"depth": 1, "image_size": (16, 32), "patch_size": (4, 4)},
            "ViTForImageClassification",
        ),
        (
            "deit_ti16",
            {"depth": 2, "width": 48, "heads": 3, "image_size": (32, 32)},
            "DeiTForImageClassificationWithTeacher",
        ),
        ("vit_lite7_p4", {"depth": 2, "registers": 1}, "DeiTForImageClassification"),
        (
            "vit_lite7_p4",
            {"depth": 2, "layer_scale": 0.1, "pool": "class_mean"},
            "Dinov2ForImageClassification",
        ),
        (
            "vit_lite7_p4",
            {
                "depth": 2,
                "layer_scale": 0.1,
                "pool": "class_mean",
                "registers": 2,
                "position_mode": "bicubic_antialias",
            },
            "Dinov2WithRegistersForImageClassification",
        ),
        (
            "vit_lite7_p4",
            {"depth": 2, "layer_scale": 0.1, "pool": "class_mean", "mlp": "swiglu", "mlp_ratio": 176 / 256},
            "Dinov2ForImageClassification",
        ),
    ],
)
def test_transformers_computes_what_we_trained(
    model: str, overrides: dict[str, Any], kind: str | None, tmp_path: Path
) -> None:
    """Bundles of our own, which never were anywhere else."""
    ours: Any = create_model(model, num_classes=3, seed=1, **overrides).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    size = ours.config.image_size
    info = describe(ours, name="mine", labels=["a", "b", "c"], image=image_spec(size, 3))
    write_bundle(tmp_path / "bundle", ours, info)
    if kind is None:
        assert run(["export", str(tmp_path / "bundle"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 1
        return
    assert run(["export", str(tmp_path / "bundle"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    theirs, told = getattr(transformers, kind).from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(told[word] for word in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        close(ours(images), theirs.eval()(images).logits)


def test_sharded_and_pickled_folders(tmp_path: Path) -> None:
    """The same weights in several files, and as pytorch_model.bin, which is read with weights_only."""
    theirs = saved("vit", tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    (tmp_path / "old").mkdir()
    torch.save(load_file(tmp_path / "whole/model.safetensors"), tmp_path / "old/pytorch_model.bin")
    (tmp_path / "old/config.json").write_text((tmp_path / "whole/config.json").read_text())
    images = torch.randn(1, 3, 24, 24)
    for name in ("shards", "old"):
        with torch.no_grad():
            close(ts.load(tmp_path / name)(images), result(theirs, images))
    next((tmp_path / "shards").glob("model-00002*")).unlink()
    assert run(["convert", str(tmp_path / "shards"), str(tmp_path / "out")]) == 1


def test_half_precision_comes_back_as_it_was(tmp_path: Path) -> None:
    saved("vit", tmp_path / "hf").to(torch.bfloat16).save_pretrained(tmp_path / "half")
    convert_checkpoint(tmp_path / "half", tmp_path / "bundle")
    assert next(ts.load(tmp_path / "bundle").parameters()).dtype == torch.float32
    export_huggingface(tmp_path / "bundle", tmp_path / "back")
    before, after = (
        load_file(tmp_path / "half/model.safetensors"),
        load_file(tmp_path / "back/model.safetensors"),
    )
    assert all(
        after[name].dtype == torch.bfloat16 and torch.equal(after[name], before[name]) for name in before
    )


def test_another_size_and_another_head(tmp_path: Path) -> None:
    theirs = saved("dinov2-registers", tmp_path / "hf")
    ours: Any
    ours, info = open_model(tmp_path / "hf", image_size=(40, 56), num_classes=7)
    assert ours.config.image_size == (40, 56) == info.image.size
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        close(ours.features(images).tokens, theirs.dinov2_with_registers(images).last_hidden_state)
        assert torch.equal(ours(images), torch.zeros(1, 7))
    assert len(info.labels) == 7 and json.loads(json.dumps(info.model))["image_size"] == [40, 56]


def test_another_head_on_a_deit(tmp_path: Path) -> None:
    """Both heads are new, and another size is interpolated before the two tokens are read."""
    theirs = saved("deit-teacher", tmp_path / "hf")
    ours: Any
    ours, info = open_model(tmp_path / "hf", num_classes=7, image_size=40)
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        close(
            ours.features(images).tokens, theirs.deit(images, interpolate_pos_encoding=True).last_hidden_state
        )
        assert torch.equal(ours(images), torch.zeros(1, 7))
    assert info.num_classes == 7 and info.image.size == (40, 40)
