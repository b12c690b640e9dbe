"""The folder for transformers: what is in it, where it lies, and what leaves nothing behind.

Logits are compared in tests/parity.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.runtime.bundles import LABELS, SPEC, digits_run

import tesela as ts
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.write import check_whole
from tesela.cli.main import run
from tesela.core.errors import UsageError, WeightsError
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_model


def test_folder_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(digits_run(), tmp_path / "run")
    assert run(["export", str(tmp_path / "run"), "--to", "hf", "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    folder = tmp_path / "run/hf"
    assert (said["folder"], said["architecture"], said["format"]) == (
        str(folder),
        "ViTForImageClassification",
        "hf",
    )
    assert sorted(said["files"]) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert said["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert "read back: every tensor equal" in captured.err
    config, spec = (
        json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    assert [config["id2label"][str(index)] for index in range(10)] == LABELS
    assert (spec["size"], spec["image_mean"], spec["resample"]) == ({"height": 8, "width": 8}, [0.3], 2)
    card = (folder / "README.md").read_text()
    assert (
        card.startswith("---\nlicense: CC0-1.0\nlibrary_name: transformers\n")
        and "ViTForImageClassification.from_pretrained" in card
    )


def test_it_comes_back_as_it_went(tmp_path: Path) -> None:
    """Weights, labels, preprocessing and licence."""
    ts.export(digits_run(), to="hf", out=tmp_path / "hf")
    before, info = load_bundle(digits_run() / "bundle")
    after, back = open_model(tmp_path / "hf")
    assert (back.labels, back.image, back.license) == (info.labels, info.image, info.license)
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    ts.export(digits_run(), to="hf", out=tmp_path / "hf")  # an earlier export is replaced


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="is no earlier export"):
        export_huggingface(digits_run(), tmp_path / "mine")
    with pytest.raises(UsageError, match="holds the bundle"):
        export_huggingface(digits_run(), digits_run() / "bundle")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


def test_what_has_no_place_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("vit_nano", num_classes=10, seed=0, pool="mean").eval()
    write_bundle(tmp_path / "bundle", model, describe(model, name="mean", labels=LABELS, image=SPEC))
    assert run(["export", str(tmp_path / "bundle"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: ViTForImageClassification has no pool=mean",
        "hint: only models with pool=class fit",
    ]
    padded = create_model("vit_nano", num_classes=10, seed=0).eval()
    write_bundle(
        tmp_path / "bundle",
        padded,
        describe(padded, name="pad", labels=LABELS, image=dataclasses.replace(SPEC, resize="pad")),
    )
    with pytest.raises(WeightsError, match="resize=pad"):
        export_huggingface(tmp_path / "bundle", tmp_path / "hf")
    assert run(["export", str(tmp_path / "bundle"), "--to", "hf", "--data", "images"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_folder_that_reads_back_differently_is_not_kept(tmp_path: Path) -> None:
    ts.export(digits_run(), to="hf", out=tmp_path / "hf")
    other: Any = load_bundle(digits_run() / "bundle")[0]
    with torch.no_grad():
        other.backbone.norm.bias[0] += 1e-7
    with pytest.raises(WeightsError, match=r"reads back differently: norm\.bias"):
        check_whole(tmp_path / "hf", other)


def test_an_export_is_proved_by_logits(tmp_path: Path) -> None:
    """Equal tensors are not enough: a config.json with another activation or epsilon computes otherwise."""
    report = export_huggingface(digits_run(), tmp_path / "hf")
    assert report.proved == ["here", f"in transformers {transformers.__version__}"]
    assert report.lines()[1] == f"read back: every tensor equal; logits equal {' and '.join(report.proved)}"
    model = load_bundle(digits_run() / "bundle")[0]
    path = tmp_path / "hf/config.json"
    config = json.loads(path.read_text())
    for changed in ({"hidden_act": "relu"}, {"layer_norm_eps": 0.1}, {"num_attention_heads": 1}):
        path.write_text(json.dumps({**config, **changed}))
        with pytest.raises(WeightsError, match="computes other outputs here"):
            check_whole(tmp_path / "hf", model)
    path.write_text(json.dumps(config))
    assert check_whole(tmp_path / "hf", model) == ["here"]
    with pytest.raises(WeightsError, match="computes other outputs in another library"):
        check_whole(
            tmp_path / "hf",
            model,
            through=lambda folder, images, headless: {"in another library": model(images) * 1.001},
        )
