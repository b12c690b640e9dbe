"""The folder for timm: config.json as timm's hub layout has it.

Logits are compared in tests/parity and benchmarks/parity_timm.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runtime.bundles import LABELS, SPEC, digits_run

from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
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


@pytest.mark.parametrize(
    ("name", "fields", "word"),
    [
        ("vit_nano", {"patch_bias": False}, "patch_bias=False"),
        ("vit_nano", {"embedded_norm": "tokens"}, "patch_bias=True"),
        ("vit_nano", {"embedded_norm": "patches"}, "embedded_norm=patches"),
        ("vit_nano", {"position": "rotary", "patch_bias": False}, "patch_bias=False"),
        ("vit_nano", {"position": "rotary", "embedded_norm": "tokens"}, "patch_bias=True"),
        ("vit_nano", {"position": "offset_bias", "patch_bias": False}, "patch_bias=False"),
        ("deit_ti16", {"embedded_norm": "tokens", "patch_bias": False}, "embedded_norm=tokens"),
        ("deit_ti16", {"final_norm": False}, "final_norm=False"),
        ("deit_ti16", {"prefix_positions": False}, "prefix_positions=False"),
        ("deit_ti16", {"dense_bias": False}, "dense_bias=False"),
        ("deit_ti16", {"qk_norm": True}, "qk_norm=True"),
        ("deit_ti16", {"inner_norm": "both"}, "inner_norm=both"),
        ("deit_ti16", {"norm": "branch"}, "norm=branch"),
        ("vit_nano", {"norm": "branch", "mlp": "swiglu"}, "norm=branch"),
        ("vit_nano", {"norm": "branch", "norm_kind": "rms"}, "norm=branch"),
        ("vit_nano", {"norm": "parallel", "mlp": "swiglu"}, "mlp=swiglu beside norm=parallel"),
        ("vit_nano", {"norm": "parallel", "dense_bias": False}, "dense_bias=False beside norm=parallel"),
        ("vit_nano", {"norm": "parallel", "inner_norm": "mlp"}, "inner_norm=mlp beside norm=parallel"),
        ("vit_nano", {"norm": "parallel", "norm_eps": 1e-5}, "norm_eps=1e-05"),
        ("vit_nano", {"norm": "parallel", "embedded_norm": "patches"}, "embedded_norm=patches"),
        ("deit_ti16", {"norm": "parallel"}, "norm=parallel"),
        ("r_vit_ti32", {"arithmetic": "timm", "norm": "parallel"}, "norm=parallel"),
        ("deit_ti16", {"mlp": "swiglu"}, "mlp=swiglu"),
        ("deit_ti16", {"position": "none"}, "position=none"),
        ("deit_ti16", {"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ("deit_ti16", {"norm_kind": "rms"}, "norm_kind=rms"),
        ("r_vit_ti32", {"arithmetic": "timm", "embedded_norm": "tokens"}, "embedded_norm=tokens"),
        ("r_vit_ti32", {"arithmetic": "timm", "embedded_norm": "patches"}, "embedded_norm=patches"),
        ("r_vit_ti32", {"arithmetic": "timm", "norm_eps": 1e-5}, "norm_eps=1e-05"),
        ("r_vit_ti32", {"arithmetic": "timm", "mlp": "swiglu"}, "mlp=swiglu"),
    ],
)
def test_what_timm_could_not_load_is_refused(
    name: str, fields: dict[str, Any], word: str, tmp_path: Path
) -> None:
    """Whether timm is installed or not; it was seen to fail on each of them."""
    size: dict[str, Any] = {"image_size": 64, "depth": 1, "width": 32, "heads": 2}
    model = create_model(name, num_classes=10, channels=1, seed=0, **(size | fields)).eval()
    spec = replace(SPEC, height=64, width=64)
    write_bundle(tmp_path / "m", model, describe(model, name="m", labels=LABELS, image=spec))
    with pytest.raises(WeightsError) as caught:
        export_timm(tmp_path / "m", tmp_path / "timm")
    assert word in caught.value.message and not (tmp_path / "timm").exists()


def test_what_the_other_library_does_not_load_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left."""

    def fails(*_: Any) -> None:
        raise RuntimeError("Missing key(s):\n\tnorm.weight")

    monkeypatch.setattr("tesela.checkpoints.timm.through.through_timm", fails)
    with pytest.raises(WeightsError, match=r"is not loaded .*: Missing key\(s\): norm\.weight"):
        export_timm(digits_run(), tmp_path / "timm")
    assert not (tmp_path / "timm").exists()
