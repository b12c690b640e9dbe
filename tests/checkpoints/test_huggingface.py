"""Fields of Hugging Face configs, against transformers' own config classes; tensors are in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.parity.huggingface_models import saved

from tesela.checkpoints.huggingface.config import (
    architecture_of,
    choose_architecture,
    gated_width,
    huggingface_config,
    huggingface_fields,
    read_labels,
)
from tesela.checkpoints.open import open_model
from tesela.core.config import build, to_mapping
from tesela.core.errors import WeightsError
from tesela.models import catalog
from tesela.models.deit.config import DeiTConfig
from tesela.models.vit.config import ViTConfig

VIT = "ViTForImageClassification"


def test_fields_there_and_back() -> None:
    ours = catalog.resolve(
        "vit_lite7_p4",
        overrides={"dropout": 0.1, "qkv_bias": False, "activation": "gelu_tanh", "norm_eps": 1e-5},
    )
    theirs = transformers.ViTConfig.from_dict(
        huggingface_config(VIT, to_mapping(ours), labels=["cat", "dog"])
    )
    assert theirs.intermediate_size == 512 and theirs.id2label == {0: "cat", 1: "dog"}
    family, fields = huggingface_fields(theirs.to_dict(), VIT)
    assert family == "vit" and ViTConfig(**fields) == ours


def test_defaults_of_the_library() -> None:
    for theirs, kind, name, classes in (
        (transformers.ViTConfig(), VIT, "vit_b16", 86_567_656),
        (transformers.DeiTConfig(), "DeiTForImageClassificationWithTeacher", "deit_b16", 87_338_192),
    ):
        family, fields = huggingface_fields(theirs.to_dict(), kind)
        config: Any = build(DeiTConfig if family == "deit" else ViTConfig, fields)
        assert config.norm_eps == 1e-12
        assert (
            config.parameter_count(1000) == catalog.find_model(name).config.parameter_count(1000) == classes
        )


@pytest.mark.parametrize(("width", "ratio"), [(192, 4), (32, 2), (48, 5)])
def test_width_of_the_gated_mlp(width: int, ratio: int) -> None:
    """Against the module that transformers makes of such a config, at depth 1."""
    config = transformers.Dinov2Config(
        hidden_size=width,
        mlp_ratio=ratio,
        use_swiglu_ffn=True,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=14,
    )
    theirs = transformers.Dinov2Model(config)
    sizes = {
        parameter.shape
        for name, parameter in theirs.named_parameters()
        if "mlp" in name and name.endswith("weight")
    }
    assert (width, gated_width(width, ratio)) in {tuple(size) for size in sizes}
    _, fields = huggingface_fields(config.to_dict(), "Dinov2Model")
    assert ViTConfig(**fields).mlp_width == gated_width(width, ratio)
    assert gated_width(1536, 4) == 4096  # the published giant


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("vit_lite7_p4", {"pool": "mean"}, "pool=mean"),
        ("vit_lite7_p4", {"registers": 2}, "registers=2"),
        ("vit_lite7_p4", {"attention": "wide"}, "wide"),
        ("vit_lite7_p4", {"position": "rotary"}, "position=rotary"),
        ("vit_lite7_p4", {"position_at": "shared"}, "position_at=shared"),
        ("vit_lite7_p4", {"head": "mlp"}, "head=mlp"),
        ("vit_lite7_p4", {"layer_scale": 0.1}, "pool=class"),
        ("vit_lite7_p4", {"layer_scale": 0.1, "pool": "class_mean", "image_size": (32, 64)}, "square"),
        ("cct_2_3x2_32", {}, "'cct'"),
    ],
)
def test_what_has_no_place_there(model: str, overrides: dict[str, Any], message: str) -> None:
    config = catalog.resolve(model, overrides=overrides)
    with pytest.raises(WeightsError, match=message):
        choose_architecture(catalog.family_of(config), to_mapping(config))


def test_mlp_widths_that_dinov2_has_not() -> None:
    config = catalog.resolve(
        "vit_lite7_p4", overrides={"layer_scale": 0.1, "pool": "class_mean", "mlp_ratio": 2.5}
    )
    with pytest.raises(WeightsError, match="640 units at width 256"):
        huggingface_config("Dinov2ForImageClassification", to_mapping(config), labels=[])


def test_what_we_have_not() -> None:
    with pytest.raises(
        WeightsError, match=r"'PvtForImageClassification' in config\.json is not known"
    ) as caught:
        architecture_of({"model_type": "pvt", "architectures": ["PvtForImageClassification"]}, {})
    assert "ViTForImageClassification" in caught.value.hint
    with pytest.raises(WeightsError, match="model type 'pvt'"):
        architecture_of({"model_type": "pvt"}, {})
    with pytest.raises(WeightsError, match="'mish'"):
        huggingface_fields({"model_type": "vit", "hidden_act": "mish"}, VIT)
    with pytest.raises(WeightsError, match="does not make sense"):
        huggingface_fields({"model_type": "vit", "hidden_size": "wide"}, VIT)


def test_architectures_that_a_config_leaves_out() -> None:
    assert architecture_of({"model_type": "vit"}, {"classifier.weight": 0}) == VIT
    assert architecture_of({"model_type": "vit"}, {}) == "ViTModel"
    assert (
        architecture_of({"model_type": "deit"}, {"cls_classifier.weight": 0})
        == "DeiTForImageClassificationWithTeacher"
    )
    assert architecture_of({"model_type": "dinov2_with_registers"}, {}) == "Dinov2WithRegistersModel"


def test_labels() -> None:
    assert read_labels({"id2label": {"1": "dog", "0": "cat"}}, 2) == ["cat", "dog"]
    assert read_labels({}, 2) == list(transformers.ViTConfig(num_labels=2).id2label.values())
    for wrong in ({"id2label": {"0": "cat"}}, {"id2label": {"0": "cat", "2": "dog"}}, {"num_labels": 3}):
        with pytest.raises(WeightsError, match="classes"):
            read_labels(wrong, 2)


def test_a_model_of_four_channels(tmp_path: Path) -> None:
    """Its files are not blamed: logits are transformers', and a mean of three values is named as such."""
    theirs = saved("vit", tmp_path / "m", num_channels=4)
    model, info = open_model(tmp_path / "m")
    assert (info.image.channels, info.image.mean) == (4, (0.5,) * 4)
    images = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(images).logits, rtol=1e-5, atol=1e-5)
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "do_resize": false}'
    )
    with pytest.raises(WeightsError, match="image_mean has 3 values for 4 channels"):
        open_model(tmp_path / "m")
