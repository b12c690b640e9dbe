"""timm's checkpoints of every kind against ``timm_reference``, and back to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.timm_reference import logits, random_tensors

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.config import check_timm
from tesela.checkpoints.timm.eva_arguments import ratio
from tesela.checkpoints.timm.fields import timm_fields
from tesela.checkpoints.timm.names import TimmStyle, timm_table
from tesela.checkpoints.timm.write import export_timm
from tesela.cli.main import run
from tesela.core.config import to_mapping
from tesela.core.errors import WeightsError
from tesela.models import catalog

#: What the checkpoint has, whether the patches are averaged, the image size.
CHECKPOINTS: dict[str, tuple[dict[str, Any], bool, tuple[int, int]]] = {
    "plain": ({}, False, (12, 12)),
    "oblong": ({"grid": (2, 4), "patch": (4, 2)}, False, (8, 8)),
    "no bias": ({"bias": ""}, False, (12, 12)),
    "biases of queries and values": ({"bias": "split"}, False, (12, 12)),
    "layer scale, positions of patches alone": ({"scale": True, "rows": 0}, False, (12, 12)),
    "gated": ({"swiglu": True, "scale": True}, False, (12, 12)),
    "distilled": ({"tokens": ("cls_token", "dist_token"), "rows": 2}, False, (12, 12)),
    "registers without positions": ({"registers": 3, "rows": 0}, False, (12, 12)),
    "registers with positions": ({"registers": 3, "rows": 4}, False, (12, 12)),
    "mean without class token": ({"tokens": (), "rows": 0, "norm": "fc_norm"}, True, (12, 12)),
    "mean beside a class token": ({"norm": "fc_norm"}, True, (12, 12)),
    "mean beside a class token without a position": ({"norm": "fc_norm", "rows": 0}, True, (12, 12)),
    "mean beside class token and registers": ({"norm": "fc_norm", "rows": 3, "registers": 2}, True, (12, 12)),
    "attention pooling": ({"tokens": (), "rows": 0, "pool": True}, False, (12, 12)),
    "attention pooling beside a class token": ({"rows": 1, "pool": True}, False, (12, 12)),
    "attention pooling beside registers": (
        {"tokens": (), "rows": 0, "registers": 3, "pool": True},
        False,
        (12, 12),
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_and_round_trip(name: str, tmp_path: Path) -> None:
    made, average, size = CHECKPOINTS[name]
    tensors = random_tensors(**made)
    save_file(tensors, tmp_path / "model.safetensors")
    assert (
        run(
            [
                "convert",
                str(tmp_path / "model.safetensors"),
                str(tmp_path / "bundle"),
                "--image-size",
                f"{size[0]}x{size[1]}",
            ]
        )
        == 0
    )
    model, _ = open_model(tmp_path / "bundle")
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.parameter_count(5)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        found, wanted = model(images).double(), logits(tensors, images, heads=2, average=average)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    export_timm(tmp_path / "bundle", tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == tensors.keys() and all(torch.equal(back[key], tensors[key]) for key in tensors)


def test_pickles_nests_and_missing_heads(tmp_path: Path) -> None:
    tensors = random_tensors(head=False, mask_token=(1, 128), rows=1)
    nested = {"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in tensors.items()}}
    torch.save(nested, tmp_path / "model.pth")
    opened = convert_checkpoint(tmp_path / "model.pth", tmp_path / "bundle", num_classes=4)
    assert opened.info.num_classes == 4
    assert any("mask_token (1x128)" in remark for remark in opened.remarks)
    assert any("no classifier" in remark for remark in opened.remarks)
    assert opened.info.model["pool"] == "class_mean"  # names and mask token are those of the official DINOv2


def test_config_beside_the_weights(tmp_path: Path) -> None:
    """Heads, pooling, preprocessing and labels that timm writes for the hub."""
    save_file(random_tensors(), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 5,
        "label_names": list("abcde"),
        "model_args": {
            "num_heads": 8,
            "img_size": 12,
            "init_values": None,
            "embed_dim": 128,
            "depth": 2,
            "patch_size": 4,
            "mlp_ratio": 40 / 128,
        },
        "pretrained_cfg": {
            "input_size": [3, 12, 12],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.5, 0.5, 0.5],
            "crop_pct": 0.9,
            "license": "mit",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, info = open_model(tmp_path)
    assert info.model["heads"] == 8 and info.labels == list("abcde") and info.license == "mit"
    assert (info.image.mean, info.image.crop_ratio, info.image.resize) == ((0.1, 0.2, 0.3), 0.9, "crop")
    images = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images).double(), logits(random_tensors(), images, heads=8), rtol=1e-4, atol=1e-5
        )


def test_what_no_tensor_says(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="heads share a width of 24") as caught:
        timm_fields(random_tensors(width=24), arguments={})
    assert "--heads" in caught.value.hint
    assert timm_fields(random_tensors(width=24), arguments={}, heads=3)[1]["heads"] == 3
    assert timm_fields(random_tensors(width=1280, depth=1, hidden=8), arguments={})[1]["heads"] == 16  # ViT-H
    with pytest.raises(WeightsError, match="pooling 'avgmax'"):
        timm_fields(random_tensors(), arguments={"global_pool": "avgmax"})
    with pytest.raises(WeightsError, match="activation 'hard_swish'"):
        timm_fields(random_tensors(), arguments={"act_layer": "hard_swish"})


def test_unknown_tensors_are_named_with_their_shapes(tmp_path: Path) -> None:
    tensors = random_tensors(rows=1)
    del tensors["blocks.1.attn.proj.bias"]
    save_file({**tensors, "blocks.0.attn.gate.weight": torch.ones(64)}, tmp_path / "model.safetensors")
    with pytest.raises(
        WeightsError,
        match=(
            r"missing: blocks\.1\.attn\.proj\.bias \(128\); not known: blocks\.0\.attn\.gate\.weight "
            r"\(64\)"
        ),
    ):
        open_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("vit_lite7_p4", {"pool": "sequence"}, "pool=sequence"),
        ("vit_lite7_p4", {"attention": "axial", "depth": 8}, "attention=axial"),
        ("vit_lite7_p4", {"position": "sincos2d"}, "position=sincos2d"),
        ("vit_lite7_p4", {"norm_eps": 1e-4}, "norm_eps=0.0001"),
        ("vit_lite7_p4", {"distillation": True}, "distillation token"),
        ("vit_lite7_p4", {"pooled_norm": True}, "one last norm"),
        ("vit_lite7_p4", {"mlp": "swiglu", "pool": "attention"}, "mlp=swiglu beside pool=attention"),
        ("vit_lite7_p4", {"input_norm": "batch"}, "input_norm=batch"),
        ("cct_2_3x2_32", {}, "'cct'"),
    ],
)
def test_what_has_no_place_there(model: str, overrides: dict[str, Any], message: str) -> None:
    config = catalog.resolve(model, overrides=overrides)
    with pytest.raises(WeightsError, match=message):
        check_timm(catalog.family_of(config), to_mapping(config))


def test_ratios_that_timm_rounds_down() -> None:
    assert all(
        int(width * ratio(width, hidden)) == hidden
        for width in range(1, 200, 7)
        for hidden in range(1, 400, 3)
    )


def test_names_of_the_official_dinov2() -> None:
    names = timm_table("vit", {"registers": 2, "mlp": "swiglu"}, TimmStyle(official=True, head=False))
    known = {name for rule in names.rules for name in rule.foreign}
    assert {
        "register_tokens",
        "blocks.{i}.mlp.w12.weight",
        "blocks.{i}.mlp.w3.bias",
        "blocks.{i}.ls1.gamma",
    } <= known
