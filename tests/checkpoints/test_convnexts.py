"""ConvNeXt of other programs, against transformers' own outputs; sizes as its papers publish them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
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

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.models import catalog
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

KINDS: dict[str, Any] = {
    "first": (ConvNextForImageClassification, ConvNextConfig),
    "second": (ConvNextV2ForImageClassification, ConvNextV2Config),
}
#: Of timm, whose second version has no factors.
NAMES = {"first": "convnext_atto", "second": "convnextv2_atto"}
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
    sizes: dict[str, Any] = {"hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "num_stages": 3}
    model = network(settings(**{**sizes, "num_labels": 3, **changes})).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 0.3 + 0.1)
    model.save_pretrained(folder)
    return model


#: As many stages as all of timm's have, with its epsilon.
FOUR: dict[str, Any] = {
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 2, 1, 1],
    "num_stages": 4,
    "layer_norm_eps": 1e-6,
}


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
    config = {"architecture": NAMES[kind], "pretrained_cfg": view, "label_names": ["a", "b", "c"]}
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


def same_tensors(first: Path, second: Path) -> bool:
    wanted, found = (load_file(folder / "model.safetensors") for folder in (first, second))
    return wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_comes_back(tmp_path: Path, kind: str) -> None:
    """Equal tensors, settings, labels, preprocessing and licence; transformers computes it from there."""
    written(tmp_path / "hf", kind, drop_path_rate=0.25, image_size=64)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    reference = json.loads((tmp_path / "bundle/certificate.json").read_text())["reference"]
    assert next(iter(reference)).startswith("transformers")
    report = export_huggingface(tmp_path / "bundle", tmp_path / "again")
    assert report.architecture == KINDS[kind][0].__name__ and len(report.proved) == 2
    assert same_tensors(tmp_path / "hf", tmp_path / "again")
    for file in ("config.json", "preprocessor_config.json"):
        before, after = (json.loads((tmp_path / name / file).read_text()) for name in ("hf", "again"))
        assert {name: after[name] for name in before} == before
    assert after["size"] == {"shortest_edge": 64}
    assert "license: apache-2.0" in (tmp_path / "again/README.md").read_text()


def test_a_body_alone_comes_back(tmp_path: Path) -> None:
    body = ConvNextModel(ConvNextConfig(**FOUR)).eval()
    body.save_pretrained(tmp_path / "hf")
    assert export_huggingface(tmp_path / "hf", tmp_path / "again").architecture == "ConvNextModel"
    assert same_tensors(tmp_path / "hf", tmp_path / "again")
    export_timm(tmp_path / "hf", tmp_path / "timm")
    stated = json.loads((tmp_path / "timm/config.json").read_text())
    assert stated["num_classes"] == stated["pretrained_cfg"]["num_classes"] == 0
    assert not any(name.startswith("head.fc") for name in load_file(tmp_path / "timm/model.safetensors"))
    export_huggingface(tmp_path / "timm", tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convolutions", [False, True])
def test_a_folder_of_timm_comes_back(tmp_path: Path, kind: str, convolutions: bool) -> None:
    """In the form that it had; to transformers, and from there to timm with matrices."""
    written(tmp_path / "hf", kind, **FOUR)
    (tmp_path / "timm").mkdir()
    tensors = as_timm(load_file(tmp_path / "hf/model.safetensors"), convolutions=convolutions)
    save_file(tensors, tmp_path / "timm/model.safetensors")
    view = {"input_size": [3, 64, 64], "crop_pct": 0.95, "interpolation": "bicubic", "license": "mit"}
    config = {"architecture": NAMES[kind], "pretrained_cfg": view, "label_names": ["a", "b", "c"]}
    (tmp_path / "timm/config.json").write_text(json.dumps(config))
    export_timm(tmp_path / "timm", tmp_path / "again")
    assert same_tensors(tmp_path / "timm", tmp_path / "again")
    stated = json.loads((tmp_path / "again/config.json").read_text())
    assert stated["model_args"] == {
        "in_chans": 3,
        "depths": [1, 2, 1, 1],
        "dims": [8, 12, 16, 20],
        "patch_size": 4,
        "conv_mlp": convolutions,
        "use_grn": kind == "second",
        "norm_eps": 1e-6,
    }
    assert stated["label_names"] == ["a", "b", "c"] and stated["num_classes"] == 3
    assert {name: stated["pretrained_cfg"][name] for name in view} == view
    assert stated["pretrained_cfg"]["fixed_input_size"] is False  # timm's class takes no img_size
    report = export_huggingface(tmp_path / "again", tmp_path / "back")
    assert len(report.proved) == 2 and same_tensors(tmp_path / "hf", tmp_path / "back")
    first, _ = open_model(tmp_path / "timm")
    second, info = open_model(tmp_path / "back")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(second(images), first(images), rtol=1e-5, atol=1e-5)
    assert info.labels == ["a", "b", "c"] and info.license == "mit"
    export_timm(tmp_path / "back", tmp_path / "new")
    stated = json.loads((tmp_path / "new/config.json").read_text())
    assert stated["architecture"] == ("convnext_tiny" if kind == "first" else "convnextv2_tiny")
    assert (load_file(tmp_path / "new/model.safetensors")["stages.0.blocks.0.mlp.fc1.weight"].ndim) == 2


@pytest.mark.parametrize(
    ("changes", "to", "message"),
    [
        ({"stem": 2}, "timm", "stem=2"),
        ({"stem": 8}, "timm", "stem=8"),
        ({"widths": (8, 12), "depths": (1, 1)}, "timm", "2 stages"),
        ({"pooled_norm_eps": 1e-1}, "timm", "pooled_norm_eps=0.1"),
        ({"norm_eps": 1e-5}, "hf", "norm_eps=1e-05"),
        ({"response_norm": True}, "hf", "layer_scale=1e-06 beside response_norm"),
    ],
    ids=str,
)
def test_what_has_no_place_there_is_refused(
    tmp_path: Path, changes: dict[str, Any], to: str, message: str
) -> None:
    """With the format that has one; timm was seen to compute another network with such stems."""
    config = replace(
        catalog.find_model("convnext_tiny").config,
        **{"widths": (8, 12, 16, 20), "depths": (1, 1, 1, 1), "image_size": (64, 64), **changes},
    )
    model = create_model(config, num_classes=3, seed=0).eval()
    info = describe(model, name="m", labels=["a", "b", "c"], image=image_spec((64, 64), 3))
    write_bundle(tmp_path / "m", model, info)
    exports = {"timm": export_timm, "hf": export_huggingface}
    with pytest.raises(WeightsError, match=message) as caught:
        exports.pop(to)(tmp_path / "m", tmp_path / "out")
    other = next(iter(exports))
    assert f"--to {other}" in caught.value.hint and not (tmp_path / "out").exists()
    assert exports[other](tmp_path / "m", tmp_path / "out").proved


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type"),
        ({"depths": [1, 1, 1]}, "depths="),
        ({"hidden_sizes": [8, 12, 20]}, "hidden_sizes="),
        ({"patch_size": 2}, "patch_size=2"),
        ({"layer_scale_init_value": 0}, "layer_scale_init_value=0"),
        ({"model_type": "convnextv2"}, "ConvNeXt"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights_is_refused(
    tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    written(tmp_path, "first")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | stated))
    with pytest.raises(WeightsError, match=message):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model_args": {"output_stride": 16}}, "output_stride=16"),
        ({"model_args": {"act_layer": "relu"}}, "act_layer='relu'"),
        ({"model_args": {"kernel_sizes": 5}}, "kernel_sizes=5"),
        ({"model_args": {"strange": 1}}, "strange=1"),
        ({"model_args": {"use_grn": True}}, "use_grn=True"),
        ({"model_args": {"ls_init_value": None}}, "ls_init_value=None"),
        ({"num_classes": 4}, "4 classes"),
    ],
    ids=str,
)
def test_arguments_of_timm_that_are_not_computed_are_refused(
    tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    written(tmp_path, "first")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(as_timm(tensors, convolutions=False), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convnext_tiny", **stated}))
    with pytest.raises(WeightsError, match=message) as caught:
        open_model(tmp_path)
    assert caught.value.hint


def test_an_epsilon_of_timm_is_computed_with(tmp_path: Path) -> None:
    """Reference: the plain norm with that epsilon."""
    written(tmp_path, "first")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(as_timm(tensors, convolutions=False), tmp_path / "model.safetensors")
    stated = {"architecture": "convnext_tiny", "model_args": {"norm_eps": 0.5}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    model: Any = open_model(tmp_path)[0]
    maps = torch.randn(1, 8, 2, 2)
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, correction=0, keepdim=True)
    with torch.no_grad():
        found = model.backbone.stages[0].norm(maps)
    norm = model.backbone.stages[0].norm
    wanted = (maps - mean) / (variance + 0.5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-5)
    assert model.pooled_norm.eps == 0.5


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
