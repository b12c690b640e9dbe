"""Official checkpoints of DINOv3 and MAE against the same weights in transformers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.backbone_models import outputs, saved
from tests.parity.huggingface_models import close
from tests.parity.official_models import official_dinov3, official_mae
from tests.parity.timm_reference import logits

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_foreign, open_model
from tesela.core.errors import WeightsError
from tesela.layers.trace import Trace


def pooled(place: Path, images: torch.Tensor, **options: Any) -> torch.Tensor:
    model: Any
    model, _ = open_model(place, **options)
    with torch.no_grad():
        found: torch.Tensor = model.pooled(images, trace=Trace())
    return found


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["dinov3", "dinov3-gated"])
def test_dinov3_as_its_own_code_saves_it(name: str, ending: str, tmp_path: Path) -> None:
    """<= 1e-5 at three sizes; and back to transformers with the bytes of the same weights there."""
    theirs = saved(name, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf/model.safetensors")
    own = official_dinov3(tensors, heads=3, gated="gated" in name)
    place = tmp_path / f"m{ending}"
    torch.save(own, place) if ending == ".pth" else save_file(own, place)
    for size in ((24, 24), (24, 40), (56, 16)):
        images = torch.randn(2, 3, *size)
        close(pooled(place, images), outputs(theirs, images))
    convert_checkpoint(place, tmp_path / "bundle")
    report = export_huggingface(tmp_path / "bundle", tmp_path / "back")
    assert report.architecture == "DINOv3ViTModel" and report.proved[1].startswith("in transformers")
    back = load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == tensors.keys() and all(torch.equal(back[key], tensors[key]) for key in back)


def test_a_training_state_of_dinov3(tmp_path: Path) -> None:
    """The teacher's backbone beside its heads; a norm for small crops, which is named and left aside."""
    theirs = saved("dinov3", tmp_path / "hf")
    own = official_dinov3(load_file(tmp_path / "hf/model.safetensors"), heads=3)
    own |= {f"local_cls_norm.{part}": torch.ones(48) for part in ("weight", "bias")}
    teacher = {f"backbone.{name}": tensor for name, tensor in own.items()}
    teacher["dino_head.last_layer.weight"] = torch.ones(2, 2)
    torch.save({"teacher": teacher}, tmp_path / "m.pth")
    images = torch.randn(2, 3, 24, 24)
    close(pooled(tmp_path / "m.pth", images), outputs(theirs, images))
    opened = open_foreign(tmp_path / "m.pth")
    said = "\n".join(opened.remarks)
    assert "local_cls_norm.weight" in said and "satellite" in said
    assert opened.info.image.mean == (0.485, 0.456, 0.406)


def test_variants_of_dinov3_that_compute_otherwise_are_refused(tmp_path: Path) -> None:
    saved("dinov3", tmp_path / "hf")
    own = official_dinov3(load_file(tmp_path / "hf/model.safetensors"), heads=3)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"cls_norm.weight": torch.ones(48)}, "cls_norm"),
        ({"rope_embed.periods": torch.tensor([1.0, 2.0, 30.0, 40.0])}, "equal steps"),
        ({"rope_embed.periods": torch.ones(5)}, "do not divide a width of 48"),
        ({"blocks.0.attn.wq.weight": torch.ones(48, 48)}, "not known"),
        ({"rope_embed.periods": None}, "rope_embed.periods is missing"),
        ({"blocks.1.norm2.weight": None}, "missing: layer.1.norm2.weight"),
    ]
    for change, named in changes:
        tensors = {name: one for name, one in {**own, **change}.items() if one is not None}
        torch.save(tensors, tmp_path / "m.pth")
        with pytest.raises(WeightsError, match=named) as caught:
            open_model(tmp_path / "m.pth")
        assert caught.value.hint


@pytest.mark.parametrize("decoder", [True, False])
def test_mae_as_its_own_code_saves_it(decoder: bool, tmp_path: Path) -> None:
    """With the decoder of a pre-training, and the encoder alone; <= 1e-5 of transformers' class token."""
    theirs = saved("mae-pretraining", tmp_path / "hf", layer_norm_eps=1e-6)
    own = official_mae(load_file(tmp_path / "hf/model.safetensors"))
    assert {"decoder_blocks.0.attn.qkv.weight", "decoder_pred.bias", "mask_token"} <= own.keys()
    if not decoder:
        own = {name: one for name, one in own.items() if "decoder" not in name and name != "mask_token"}
    torch.save({"model": own, "epoch": 3}, tmp_path / "m.pth")
    images = torch.randn(2, 3, 24, 24)
    opened = open_foreign(tmp_path / "m.pth", heads=3)
    model: Any = opened.model
    with torch.no_grad():
        close(model.pooled(images, trace=Trace()), outputs(theirs, images))
    if decoder:
        assert opened.info.image.mean == (0.485, 0.456, 0.406) and opened.info.image.resize == "crop"
        assert any("tensors of the decoder" in remark for remark in opened.remarks)


@pytest.mark.parametrize("averaged", [True, False])
def test_mae_fine_tuned(averaged: bool, tmp_path: Path) -> None:
    """Its classifier reads the mean of the patches and a norm, or the class token after the last norm."""
    saved("mae-pretraining", tmp_path / "hf")
    own = official_mae(load_file(tmp_path / "hf/model.safetensors"))
    own = {name: one for name, one in own.items() if "decoder" not in name and name != "mask_token"}
    own |= {"head.weight": torch.randn(5, 48), "head.bias": torch.randn(5)}
    if averaged:
        own |= {"fc_norm.weight": own.pop("norm.weight"), "fc_norm.bias": own.pop("norm.bias")}
    images = torch.randn(2, 3, 24, 24)
    wanted = logits(own, images, heads=3, average=averaged).float()
    torch.save({"model": own}, tmp_path / "m.pth")
    opened = open_foreign(tmp_path / "m.pth", heads=3)
    with torch.no_grad():
        close(opened.model(images), wanted)
    assert opened.model.num_classes == 5
    assert (opened.info.image.mean == (0.485, 0.456, 0.406)) is averaged
