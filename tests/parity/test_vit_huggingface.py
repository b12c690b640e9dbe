"""Logits against transformers' ViTForImageClassification with copied weights, to 1e-5 relative, in both directions.

Weights travel through files in both directions, so the names are those that are really on disk. Odd: transformers fixes the image
size unless it may interpolate its positions, which it then does for every size that is not square.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tesela.core.config import to_mapping
from tesela.models.factory import create_model, empty_model
from tesela.models.tensors import fit, tensors_of
from tesela.models.vit.config import ViTConfig
from tesela.weights.huggingface import vit_config, vit_fields, vit_tensors, vit_to_huggingface

SIZES = [(48, 48), (48, 64), (80, 32), (64, 64)]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """1e-5 of the largest logit: single logits near zero have no meaningful relative error."""
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture(scope="module")
def theirs() -> transformers.ViTForImageClassification:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=200, image_size=48, patch_size=8, num_labels=7
    )
    model = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("size", SIZES)
def test_we_read_what_transformers_wrote(theirs: transformers.ViTForImageClassification, size: tuple[int, int], tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    ours = empty_model(ViTConfig(**vit_fields(json.loads((tmp_path / "config.json").read_text()))), num_classes=7)
    fit(ours, vit_tensors(load_file(tmp_path / "model.safetensors")), source="file")
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        close(ours.eval()(images), theirs(images, interpolate_pos_encoding=size != (48, 48)).logits)


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_transformers_reads_what_we_wrote(size: tuple[int, int], tmp_path: Path) -> None:
    ours = create_model("vit_lite7_p4", num_classes=5, seed=0, depth=2, patch_mode="conv").eval()
    with torch.no_grad():
        ours.head.linear.weight.normal_()
    labels = [f"class {index}" for index in range(5)]
    (tmp_path / "config.json").write_text(json.dumps(vit_config(to_mapping(ours.config), labels=labels)))
    save_file(vit_to_huggingface(tensors_of(ours)), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert (
        not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")) and theirs.config.id2label[3] == "class 3"
    )
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        close(ours(images), theirs.eval()(images, interpolate_pos_encoding=size != (32, 32)).logits)


def test_pooling_with_registers_equals_dinov2() -> None:
    """Registers stand after the class token and have no positions, as in Dinov2WithRegisters (here without its layer scale)."""
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=4, num_register_tokens=3
    )
    theirs = transformers.Dinov2WithRegistersModel(config).eval()
    ours = create_model(
        ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, mlp_ratio=2, registers=3, norm_eps=1e-6),
        num_classes=2,
    ).eval()
    state = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.ones_like(parameter) if "layer_scale" in name else torch.randn_like(parameter) * 0.2)
        own = {"patches": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
        values = {f"{ours_}.{kind}": state[f"{name}.{kind}"] for ours_, name in own.items() for kind in ("weight", "bias")}
        values["prefix.class_token"] = state["embeddings.cls_token"]
        values["prefix.registers"] = state["embeddings.register_tokens"]
        values["positions.table"] = state["embeddings.position_embeddings"]
        for index, layer in enumerate(_layers(theirs)):
            part = {name: tensor for name, tensor in layer.state_dict().items() if "layer_scale" not in name}
            for kind in ("weight", "bias"):
                qkv = [tensor for word in ("q", "k", "v") for name, tensor in part.items() if _is_projection(name, word, kind)]
                values[f"blocks.{index}.attention.qkv.{kind}"] = torch.cat(qkv)
                out = next(tensor for name, tensor in part.items() if name.endswith((f"dense.{kind}", f"o_proj.{kind}")))
                values[f"blocks.{index}.attention.out.{kind}"] = out
                for ours_, name in (("norm1", "norm1"), ("norm2", "norm2"), ("mlp.expand", "mlp.fc1"), ("mlp.contract", "mlp.fc2")):
                    values[f"blocks.{index}.{ours_}.{kind}"] = part[f"{name}.{kind}"]
        ours.load_state_dict(
            {name: tensor.clone() for name, tensor in values.items()} | {k: v for k, v in ours.state_dict().items() if "head" in k}
        )
        images = torch.randn(2, 3, 16, 16)
        close(ours.features(images).tokens, theirs(images).last_hidden_state)


def _layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    return next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))


def _is_projection(name: str, word: str, kind: str) -> bool:
    full = {"q": "query", "k": "key", "v": "value"}[word]
    return name.endswith((f"{full}.{kind}", f"{word}_proj.{kind}"))
