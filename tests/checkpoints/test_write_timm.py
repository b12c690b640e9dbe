"""The folder for timm: config.json as timm's hub layout has it.

Logits are compared in tests/parity and benchmarks/parity_timm.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.runtime.bundles import LABELS, SPEC, digits_run

from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_model


def test_config(tmp_path: Path) -> None:
    report = export_timm(digits_run(), tmp_path / "timm")
    config = json.loads((tmp_path / "timm/config.json").read_text())
    arguments, stated = config["model_args"], config["pretrained_cfg"]
    assert (config["architecture"], config["num_classes"], config["label_names"]) == (
        "vit_base_patch16_224",
        10,
        LABELS,
    )
    wanted = {
        "img_size": [8, 8],
        "patch_size": 2,
        "in_chans": 1,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "class_token": True,
    }
    assert {name: arguments[name] for name in wanted} == wanted
    assert (stated["input_size"], stated["mean"], stated["crop_mode"]) == ([1, 8, 8], [0.3], "squash")
    assert any("antialiasing" in remark for remark in report.remarks)


def test_it_comes_back_as_it_went(tmp_path: Path) -> None:
    """The number of heads too, which is in no tensor."""
    export_timm(digits_run(), tmp_path / "timm")
    before, info = load_bundle(digits_run() / "bundle")
    after: Any
    after, back = open_model(tmp_path / "timm")
    assert (back.labels, back.image, after.config.heads) == (info.labels, info.image, 2)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(before(images), after(images))


def test_registers_and_other_pools(tmp_path: Path) -> None:
    """Registers have rows of zeros in timm's table where the class token has one, and none where it has
    none."""
    for pool, rows in (("class", 4), ("mean", 0), ("attention", 0)):
        model = create_model("vit_nano", num_classes=10, seed=0, registers=3, pool=pool).eval()
        write_bundle(tmp_path / pool, model, describe(model, name=pool, labels=LABELS, image=SPEC))
        export_timm(tmp_path / pool, tmp_path / "timm")
        from safetensors.torch import load_file

        table = load_file(tmp_path / "timm/model.safetensors")["pos_embed"]
        assert table.shape[1] == 16 + rows and not table[:, 1:rows].any()
        again: Any = open_model(tmp_path / "timm")[0]
        assert again.config.registers == 3
