"""Swin of other programs, against transformers' own outputs; sizes as its paper publishes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SwinConfig, SwinForImageClassification, SwinForMaskedImageModeling, SwinModel

from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.models import catalog
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

#: Millions of parameters with 1,000 classes, as transformers' models of these names have them.
PUBLISHED = {"swin_tiny": 28.3, "swin_small": 49.6, "swin_base": 87.8, "swin_large": 196.5}


def shaken(model: Any) -> Any:
    """The model in evaluation mode with weights whose attention is far from uniform."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            grown = 3.0 if re.search(r"query|key", name) else 1.0
            fan = tensor[0].numel() ** -0.5 if tensor.ndim > 1 and "table" not in name else 0.3
            tensor.copy_(torch.randn(tensor.shape) * fan * grown + (tensor.ndim == 1))
    return model.eval()


def made(network: Any = SwinForImageClassification, **changes: Any) -> Any:
    """A small Swin of transformers: maps of 14 and 7, windows of 7."""
    sizes: dict[str, Any] = {"image_size": 28, "patch_size": 2, "embed_dim": 8, "depths": [2, 2]}
    sizes |= {"num_heads": [2, 4], "window_size": 7, "mlp_ratio": 2.0, "num_labels": 3}
    return shaken(network(SwinConfig(**(sizes | changes))))


def as_timm(tensors: dict[str, torch.Tensor], *, official: bool = False) -> dict[str, torch.Tensor]:
    """The tensors under the names of timm, or of the official code, which has buffers too."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^swin\.(encoder\.)?", "", name)
        if not official:
            name = re.sub(
                r"layers\.(\d+)\.downsample", lambda at: f"layers.{int(at[1]) + 1}.downsample", name
            )
        for theirs, timms in (
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("embeddings.norm", "patch_embed.norm"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("attention.output.dense", "attn.proj"),
            ("attention.self.relative", "attn.relative"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
            ("classifier", "head" if official else "head.fc"),
        ):
            name = name.replace(theirs, timms)
        found[re.sub(r"^layernorm", "norm", name)] = tensor
    for name in [name for name in found if name.endswith("self.query.weight") or "self.query.bias" in name]:
        parts = [found.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        found[name.replace("attention.self.query", "attn.qkv")] = torch.cat(parts)
    if official:
        found["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
        found["layers.0.blocks.1.attn_mask"] = torch.full((4, 49, 49), -100.0)
    return {name: tensor.contiguous() for name, tensor in found.items()}


@pytest.mark.parametrize("size", [(28, 28), (31, 44), (56, 30)], ids=str)
def test_logits_equal_those_of_transformers(tmp_path: Path, size: tuple[int, int]) -> None:
    """Reference: transformers' own forward pass; two of the sizes are padded at every step."""
    reference = made(layer_norm_eps=1e-3, id2label={0: "cat", 1: "dog", 2: "owl"})
    reference.save_pretrained(tmp_path)
    model, info = open_model(tmp_path)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images).logits, rtol=1e-5, atol=1e-5)
    assert info.labels == ["cat", "dog", "owl"] and info.architecture == "swin"
    assert info.image.size == (28, 28) and info.image.interpolation == "bicubic"


@pytest.mark.parametrize("official", [False, True])
def test_timms_names(tmp_path: Path, official: bool) -> None:
    """Reference: the same tensors in transformers; maps that windows fill are the same in all programs."""
    reference = made(qkv_bias=False)
    reference.save_pretrained(tmp_path / "hf")
    tensors = as_timm(load_file(tmp_path / "hf/model.safetensors"), official=official)
    images = torch.randn(2, 3, 28, 28)
    if official:
        torch.save({"model": tensors}, tmp_path / "swin.pth")
        sources = [tmp_path / "swin.pth"]
    else:
        sources = [tmp_path / "timm", tmp_path / "timm.safetensors"]
        sources[0].mkdir()
        save_file(tensors, sources[0] / "model.safetensors")
        save_file(tensors, sources[1])
        stated = {"patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "qkv_bias": False}
        config = {"architecture": "swin_tiny_patch4_window7_224", "model_args": {**stated, "mlp_ratio": 2.0}}
        config["pretrained_cfg"] = {"input_size": [3, 28, 28], "crop_pct": 0.9}
        (sources[0] / "config.json").write_text(json.dumps(config))
    for source in sources:
        model, info = open_model(source)
        assert info.image.size == (28, 28) and model.config.windows == (7, 7)
        with torch.no_grad():
            torch.testing.assert_close(model(images), reference(images).logits, rtol=1e-5, atol=1e-5)


def test_round_trips_give_equal_tensors(tmp_path: Path) -> None:
    """Transformers' folder and back, to timm and back; each is read by its own library where installed."""
    reference = made()
    reference.save_pretrained(tmp_path / "hf")
    report = export_huggingface(tmp_path / "hf", tmp_path / "again")
    assert report.architecture == "SwinForImageClassification" and len(report.proved) == 2
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("hf", "again"))
    assert {name: after[name] for name in before} == before
    export_timm(tmp_path / "hf", tmp_path / "timm")
    assert load_file(tmp_path / "timm/model.safetensors").keys() == as_timm(wanted).keys()
    export_timm(tmp_path / "timm", tmp_path / "timm2")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("timm", "timm2"))
    assert first == second
    export_huggingface(tmp_path / "timm2", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (
        tmp_path / "again/model.safetensors"
    ).read_bytes()


def test_a_body_alone_gets_a_new_head(tmp_path: Path) -> None:
    """Reference: the pooled output of transformers' ``SwinModel``, here with a token for masks."""
    body = shaken(SwinModel(made().config, use_mask_token=True))
    body.save_pretrained(tmp_path / "hf")
    model: Any = open_model(tmp_path / "hf", num_classes=2)[0]
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model.pooled(images), body(images).pooler_output, rtol=1e-5, atol=1e-5)
        assert model(images).shape == (2, 2) and not model(images).any()
    assert export_huggingface(tmp_path / "hf", tmp_path / "again").architecture == "SwinModel"
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings=True"),
        ({"num_heads": [2, 2]}, "num_heads="),
        ({"window_size": 5}, "window_size=5"),
        ({"embed_dim": 16}, "embed_dim=16"),
        ({"mlp_ratio": 4.0}, "mlp_ratio=4.0"),
        ({"model_type": "swinv2"}, "second version"),
        ({"architectures": ["SwinBackbone"]}, "SwinBackbone"),
        ({"problem_type": "multi_label_classification"}, "problem_type"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_computed_here_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    """Variants of transformers, and a config that contradicts its tensors."""
    made().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    with pytest.raises(WeightsError, match=message) as caught:
        open_model(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"architecture": "swinv2_tiny_window8_256"}, "second version"),
        ({"architecture": "swin_nothing"}, "swin_nothing"),
        ({"model_args": {"head_dim": 8}}, "head_dim=8"),
        ({"model_args": {"always_partition": True}}, "always_partition=True"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer="),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max'"),
        ({"model_args": {"window_size": 5}}, "windows of 5"),
        ({"num_classes": 4}, "4 classes"),
    ],
    ids=str,
)
def test_variants_of_timm_are_refused(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    made().save_pretrained(tmp_path)
    tensors = as_timm(load_file(tmp_path / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors")
    arguments = {"patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "mlp_ratio": 2.0}
    config = {"architecture": "swin_tiny_patch4_window7_224", "pretrained_cfg": {"input_size": [3, 28, 28]}}
    config |= stated | {"model_args": arguments | stated.get("model_args", {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        open_model(tmp_path)


def test_the_body_of_masked_pretraining_is_asked_for(tmp_path: Path) -> None:
    made(SwinForMaskedImageModeling, encoder_stride=4).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="SwinForMaskedImageModeling") as caught:
        open_model(tmp_path)
    assert "SwinModel" in caught.value.hint


def test_a_model_goes_where_its_edges_are_known(tmp_path: Path) -> None:
    """Maps of 10 in windows of 4 are padded and shifted otherwise by timm; those of 8 are not."""
    sizes: dict[str, Any] = {"widths": (8, 16), "depths": (2, 2), "heads": (2, 2), "windows": (4, 4)}
    for edges, side in (("transformers", 20), ("timm", 20), ("timm", 16)):
        folder = tmp_path / f"{edges}{side}"
        model = create_model(
            "swin_nano_small", num_classes=3, seed=0, image_size=(side, side), edges=edges, **sizes
        )
        from tesela.checkpoints.foreign import image_spec

        image = image_spec((side, side), 3)
        write_bundle(folder, model.eval(), describe(model, name="m", labels=["a", "b", "c"], image=image))
        exports = {"transformers": export_huggingface, "timm": export_timm}
        for program, export in exports.items():
            if side == 20 and program != edges:
                with pytest.raises(WeightsError, match=f"edges={edges}"):
                    export(folder, tmp_path / "out")
            else:
                assert export(folder, tmp_path / f"{program}{edges}{side}").proved


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    entry = catalog.find_model(name)
    assert round(entry.parameter_count(entry.config, 1000) / 1e6, 1) == PUBLISHED[name]
