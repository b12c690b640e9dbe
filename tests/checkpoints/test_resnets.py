"""Residual networks of other programs, against transformers' own outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from tesela.checkpoints.open import open_model
from tesela.core.errors import WeightsError
from tesela.tasks.distillation.teacher import Teacher


def written(folder: Path, *, unit: str, **changes: Any) -> ResNetForImageClassification:
    """A small residual network with running statistics of its own, saved by transformers."""
    torch.manual_seed(0)
    sizes = [64, 128] if unit == "basic" else [256, 512]
    config = ResNetConfig(
        depths=[2, 1], hidden_sizes=sizes, embedding_size=64, layer_type=unit, num_labels=3, **changes
    )
    model = ResNetForImageClassification(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) * 0.1 + (0.5 if "var" in name else -0.03))
    model.save_pretrained(folder)
    return model.eval()


def as_timm(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors under the names of timm and torchvision."""
    found = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.removeprefix("resnet.").replace("embedder.embedder.convolution", "conv1")
        name = name.replace("embedder.embedder.normalization", "bn1").replace("classifier.1", "fc")
        name = re.sub(r"encoder\.stages\.(\d+)\.layers", lambda m: f"layer{int(m[1]) + 1}", name)
        name = re.sub(r"\.layer\.(\d+)\.convolution", lambda m: f".conv{int(m[1]) + 1}", name)
        name = re.sub(r"\.layer\.(\d+)\.normalization", lambda m: f".bn{int(m[1]) + 1}", name)
        name = name.replace("shortcut.convolution", "downsample.0")
        found[name.replace("shortcut.normalization", "downsample.1")] = tensor
    return found


@pytest.mark.parametrize("unit", ["basic", "bottleneck"])
def test_logits_equal_those_of_transformers(tmp_path: Path, unit: str) -> None:
    """Reference: transformers' own forward pass, for its file and for the same tensors under timm's names."""
    reference = written(tmp_path / "hf", unit=unit, id2label={0: "cat", 1: "dog", 2: "owl"})
    save_file(as_timm(tmp_path / "hf"), tmp_path / "plain.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference(images).logits
        for source in (tmp_path / "hf", tmp_path / "plain.safetensors"):
            model, info = open_model(source)
            torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
            assert info.architecture == "resnet" and info.image.size == (224, 224)
    assert open_model(tmp_path / "hf")[1].labels == ["cat", "dog", "owl"]
    assert Teacher(str(tmp_path / "hf"), ["owl", "cat"]).logits(images, info.image).shape == (2, 2)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "gelu"}, {"downsample_in_first_stage": True}, {"downsample_in_bottleneck": True}],
)
def test_variants_that_look_the_same_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    written(tmp_path, unit="bottleneck", **changes)
    with pytest.raises(WeightsError, match=next(iter(changes))):
        open_model(tmp_path)


def test_a_folder_of_timm_says_how_images_are_seen(tmp_path: Path) -> None:
    """Reference: the entries of its config.json."""
    reference = written(tmp_path / "hf", unit="bottleneck")
    (tmp_path / "timm").mkdir()
    save_file(as_timm(tmp_path / "hf"), tmp_path / "timm" / "model.safetensors")
    view = {"input_size": [3, 160, 160], "crop_pct": 0.95, "interpolation": "bilinear", "mean": [0.4] * 3}
    config = {
        "architecture": "resnet50",
        "num_classes": 3,
        "pretrained_cfg": view,
        "label_names": ["a", "b", "c"],
    }
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    model, info = open_model(tmp_path / "timm")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images).logits, rtol=1e-4, atol=1e-4)
    image = info.image
    assert (image.size, image.crop_ratio, image.interpolation) == ((160, 160), 0.95, "bilinear")
    assert (image.arithmetic, image.resized) == ("timm", (168,))
    assert image.mean == (0.4, 0.4, 0.4) and info.labels == ["a", "b", "c"]
    config["model_args"] = {"stem_type": "deep"}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="model_args"):
        open_model(tmp_path / "timm")


def test_networks_with_other_parts_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "hf", unit="basic")
    tensors = as_timm(tmp_path / "hf")
    save_file({**tensors, "layer1.0.se.fc1.weight": torch.zeros(4, 4)}, tmp_path / "attention.safetensors")
    with pytest.raises(WeightsError, match=r"layer1\.0\.se\.fc1\.weight"):
        open_model(tmp_path / "attention.safetensors")
    tensors["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    save_file(tensors, tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match="64x3x3x3"):
        open_model(tmp_path / "small.safetensors")
