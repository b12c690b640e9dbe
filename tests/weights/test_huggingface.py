"""Fields of Hugging Face configs, against transformers' own config class; tensors are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from tesela.core.config import to_mapping
from tesela.core.errors import WeightsError
from tesela.models import catalog
from tesela.models.vit.config import ViTConfig
from tesela.weights.huggingface import vit_config, vit_fields


def test_fields_there_and_back() -> None:
    ours = catalog.resolve("vit_lite7_p4", overrides={"dropout": 0.1, "qkv_bias": False, "activation": "gelu_tanh", "norm_eps": 1e-5})
    theirs = transformers.ViTConfig.from_dict(vit_config(to_mapping(ours), labels=["cat", "dog"]))
    assert theirs.intermediate_size == 512 and theirs.id2label == {0: "cat", 1: "dog"}
    assert ViTConfig(**vit_fields(theirs.to_dict())) == ours


def test_defaults_of_the_library() -> None:
    config = ViTConfig(**vit_fields(transformers.ViTConfig().to_dict()))
    assert config.norm_eps == 1e-12 and config.parameter_count(1000) == catalog.find("vit_b16").config.parameter_count(1000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pool": "mean"}, "pool=mean"),
        ({"registers": 2}, "registers=2"),
        ({"attention": "wide"}, "wide"),
        ({"image_size": (32, 64)}, "square"),
    ],
)
def test_what_has_no_place_there(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        vit_config(to_mapping(catalog.resolve("vit_lite7_p4", overrides=overrides)), labels=[])


def test_what_we_have_not() -> None:
    with pytest.raises(WeightsError, match="'swin'"):
        vit_fields({"model_type": "swin"})
    with pytest.raises(WeightsError, match="'silu'"):
        vit_fields({"model_type": "vit", "hidden_act": "silu"})
