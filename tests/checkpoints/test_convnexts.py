"""ConvNeXt of other programs, against transformers' own outputs; sizes as its papers publish them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
)

from tesela.checkpoints.open import open_model
from tesela.core.errors import WeightsError
from tesela.models import catalog

KINDS: dict[str, Any] = {
    "first": (ConvNextForImageClassification, ConvNextConfig),
    "second": (ConvNextV2ForImageClassification, ConvNextV2Config),
}
#: Millions of parameters with 1,000 classes: table 1 of arXiv 2201.03545, table 9 of arXiv 2301.00808.
PUBLISHED = {
    "convnext_tiny": 28.6,
    "convnext_small": 50.2,
    "convnext_base": 88.6,
    "convnext_large": 197.8,
    "convnext_xlarge": 350.2,
    "convnextv2_atto": 3.7,
    "convnextv2_femto": 5.2,
    "convnextv2_pico": 9.1,
    "convnextv2_nano": 15.6,
    "convnextv2_tiny": 28.6,
    "convnextv2_base": 88.7,
    "convnextv2_large": 198.0,
    "convnextv2_huge": 660.3,
}


def written(folder: Path, kind: str, **changes: Any) -> Any:
    """A small ConvNeXt with factors and norms of its own, saved by transformers."""
    torch.manual_seed(0)
    network, settings = KINDS[kind]
    config = settings(hidden_sizes=[8, 12, 16], depths=[1, 2, 1], num_stages=3, num_labels=3, **changes)
    model = network(config).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 0.3 + 0.1)
    model.save_pretrained(folder)
    return model


def as_timm(tensors: dict[str, torch.Tensor], *, convolutions: bool) -> dict[str, torch.Tensor]:
    """The tensors under the names of timm."""
    found = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^convnext(v2)?\.", "", name)
        for theirs, timms in (
            ("embeddings.patch_embeddings", "stem.0"),
            ("embeddings.layernorm", "stem.1"),
            ("encoder.", ""),
            ("downsampling_layer", "downsample"),
            (".layers.", ".blocks."),
            ("dwconv", "conv_dw"),
            ("pwconv1", "mlp.fc1"),
            ("pwconv2", "mlp.fc2"),
            ("grn", "mlp.grn"),
            ("layer_scale_parameter", "gamma"),
            ("classifier", "head.fc"),
        ):
            name = name.replace(theirs, timms)
        name = re.sub(r"^layernorm", "head.norm", name.replace(".layernorm", ".norm"))
        tensor = tensor.flatten() if ".grn." in name else tensor
        found[name] = (
            tensor[:, :, None, None] if convolutions and "mlp.fc" in name and tensor.ndim == 2 else tensor
        )
    return {name: tensor.contiguous() for name, tensor in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_transformers(tmp_path: Path, kind: str) -> None:
    """Reference: transformers' own forward pass, its epsilon of 1e-12 before the head included."""
    reference = written(tmp_path / "hf", kind, id2label={0: "cat", 1: "dog", 2: "owl"})
    images = torch.randn(2, 3, 52, 71)
    model, info = open_model(tmp_path / "hf")
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images).logits, rtol=1e-5, atol=1e-5)
    assert info.labels == ["cat", "dog", "owl"] and info.architecture == "convnext"
    assert model.config.pooled_norm_eps == 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convolutions", [False, True])
def test_timms_names(tmp_path: Path, kind: str, convolutions: bool) -> None:
    """Reference: the same tensors in transformers with timm's epsilon; dense layers may be convolutions."""
    reference = written(tmp_path / "hf", kind, layer_norm_eps=1e-6)
    folder = tmp_path / "timm"
    folder.mkdir()
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    save_file(as_timm(tensors, convolutions=convolutions), folder / "model.safetensors")
    view = {"input_size": [3, 288, 288], "crop_pct": 0.95, "interpolation": "bicubic"}
    config = {"architecture": "convnext_tiny", "pretrained_cfg": view, "label_names": ["a", "b", "c"]}
    images = torch.randn(2, 3, 52, 71)
    for named in (True, False):
        if named:
            (folder / "config.json").write_text(json.dumps(config))
        else:
            (folder / "config.json").unlink()
        model, info = open_model(folder if named else folder / "model.safetensors")
        with torch.no_grad():
            torch.testing.assert_close(model(images), reference(images).logits, rtol=1e-5, atol=1e-5)
        if named:
            assert (info.image.size, info.image.arithmetic, info.image.resized) == (
                (288, 288),
                "timm",
                (303,),
            )


def test_a_body_alone_gets_a_new_head(tmp_path: Path) -> None:
    """Reference: the pooled output of transformers' ``ConvNextModel``."""
    written(tmp_path / "hf", "first")
    body = ConvNextModel.from_pretrained(tmp_path / "hf").eval()
    body.save_pretrained(tmp_path / "body")
    model: Any = open_model(tmp_path / "body", num_classes=2)[0]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.pooled(images), body(images).pooler_output, rtol=1e-5, atol=1e-5)
        assert model(images).shape == (2, 2) and not model(images).any()


def test_the_processor_says_how_images_are_seen(tmp_path: Path) -> None:
    """As transformers 5 does: 224 is cut out of 256 by default, 384 is squashed."""
    written(tmp_path, "first")
    for edge, expected in ((224, ("crop", (256,))), (384, ("squash", ()))):
        ConvNextImageProcessor(size={"shortest_edge": edge}).save_pretrained(tmp_path)
        image = open_model(tmp_path)[1].image
        assert (image.size, image.resize, image.resized) == ((edge, edge), *expected)
        assert image.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "name", ["convnext_atto_ols", "convnext_zepto_rms", "convnext_tiny_hnf", "convnext_large_mlp"]
)
def test_variants_that_compute_otherwise_are_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "hf", "first")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    save_file(as_timm(tensors, convolutions=False), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": {}}))
    with pytest.raises(WeightsError, match=name):
        open_model(tmp_path)


def test_another_activation_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "second", hidden_act="relu")
    with pytest.raises(WeightsError, match="hidden_act='relu'"):
        open_model(tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    entry = catalog.find_model(name)
    assert round(entry.parameter_count(entry.config, 1000) / 1e6, 1) == pytest.approx(
        PUBLISHED[name], abs=0.051
    )
