"""Residual networks of other programs, against transformers' own outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model
from tesela.tasks.distillation.teacher import Teacher


def written(folder: Path, *, unit: str, **changes: Any) -> ResNetForImageClassification:
    """A small residual network with running statistics of its own, saved by transformers."""
    torch.manual_seed(0)
    sizes = [64, 128] if unit == "basic" else [256, 512]
    settings = {"depths": [2, 1], "hidden_sizes": sizes, "num_labels": 3, **changes}
    model = ResNetForImageClassification(ResNetConfig(embedding_size=64, layer_type=unit, **settings))
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


def same_tensors(first: Path, second: Path) -> bool:
    wanted, found = (load_file(folder / "model.safetensors") for folder in (first, second))
    return wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_folder_of_transformers_comes_back(tmp_path: Path) -> None:
    """Equal tensors, settings and labels; transformers computes it from there, with a body alone too."""
    names = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
    reference = written(tmp_path / "hf", unit="bottleneck", image_size=64, **names)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path / "hf")
    report = export_huggingface(tmp_path / "hf", tmp_path / "again")
    assert report.architecture == "ResNetForImageClassification" and len(report.proved) == 2
    assert same_tensors(tmp_path / "hf", tmp_path / "again")
    for file in ("config.json", "preprocessor_config.json"):
        before, after = (json.loads((tmp_path / name / file).read_text()) for name in ("hf", "again"))
        assert {name: after[name] for name in before} == before
    reference.resnet.save_pretrained(tmp_path / "body")
    model: Any = open_model(tmp_path / "body", num_classes=2)[0]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = reference.resnet(images).pooler_output.flatten(1)
        torch.testing.assert_close(model.pooled(images), wanted, rtol=1e-4, atol=1e-4)
    assert export_huggingface(tmp_path / "body", tmp_path / "body2").architecture == "ResNetModel"
    assert same_tensors(tmp_path / "body", tmp_path / "body2")


def test_a_folder_of_timm_comes_back(tmp_path: Path) -> None:
    """Four stages, of which all of timm's have; to transformers and from there to timm as well."""
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512]}
    written(tmp_path / "hf", unit="basic", **sizes)
    (tmp_path / "timm").mkdir()
    save_file(as_timm(tmp_path / "hf"), tmp_path / "timm/model.safetensors")
    view = {"input_size": [3, 64, 64], "crop_pct": 0.95, "interpolation": "bilinear", "license": "mit"}
    config = {"architecture": "resnet18", "pretrained_cfg": view, "label_names": ["a", "b", "c"]}
    stated = {"model_args": {"layers": [1, 1, 1, 1]}}
    (tmp_path / "timm/config.json").write_text(json.dumps(config | stated))
    export_timm(tmp_path / "timm", tmp_path / "again")
    assert same_tensors(tmp_path / "timm", tmp_path / "again")
    after = json.loads((tmp_path / "again/config.json").read_text())
    assert after["model_args"] == {"layers": [1, 1, 1, 1], "in_chans": 3}
    assert after["pretrained_cfg"]["classifier"] == "fc" and after["label_names"] == ["a", "b", "c"]
    assert {name: after["pretrained_cfg"][name] for name in view} == view
    export_huggingface(tmp_path / "again", tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    stated = json.loads((tmp_path / "back/config.json").read_text())
    assert (stated["layer_type"], stated["embedding_size"]) == ("basic", 64)
    assert {name: stated[name] for name in sizes} == sizes
    export_timm(tmp_path / "back", tmp_path / "new")
    assert json.loads((tmp_path / "new/config.json").read_text())["architecture"] == "resnet18"
    assert same_tensors(tmp_path / "timm", tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "changes", "export", "message"),
    [
        ("resnet18", {"width_factor": 0.125}, export_timm, "width_factor=0.125"),
        ("resnet18", {"width_factor": 0.125, "stages": (1, 1)}, export_timm, "2 stages"),
        ("resnet18_small", {"stages": (1, 1)}, export_huggingface, "root=small"),
        ("bit_r50x1", {"stages": (1, 1)}, export_huggingface, "order=pre"),
        ("resnet18", {"stages": (1, 1), "norm_eps": 1e-3}, export_timm, "norm_eps=0.001"),
    ],
)
def test_what_has_no_place_there_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], export: Any, message: str
) -> None:
    model = create_model(name, num_classes=3, seed=0, image_size=(32, 32), **changes).eval()
    info = describe(model, name="m", labels=["a", "b", "c"], image=image_spec((32, 32), 3))
    write_bundle(tmp_path / "m", model, info)
    with pytest.raises(WeightsError, match=message) as caught:
        export(tmp_path / "m", tmp_path / "out")
    assert "--to " in caught.value.hint and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type"),
        ({"depths": [1, 1]}, "depths="),
        ({"hidden_sizes": [64, 256]}, "hidden_sizes="),
        ({"layer_type": "bottleneck"}, "hidden_sizes=|layer_type="),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights_is_refused(
    tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    written(tmp_path, unit="basic")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | stated))
    with pytest.raises(WeightsError, match=message):
        open_model(tmp_path)


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
