"""Making models by name and config; the rest is in the contract suite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tesela.core.errors import ConfigError, UnknownNameError
from tesela.models import catalog
from tesela.models.factory import create_model, empty_model
from tesela.models.vit.config import ViTConfig


def test_by_name_with_overrides() -> None:
    model = create_model("vit_ti16", num_classes=3, image_size=(32, 48), channels=1, depth=1, width=24)
    assert model(torch.zeros(2, 1, 32, 48)).tolist() == [[0.0] * 3] * 2
    assert model.training and len(list(model.get_submodule("backbone.blocks").children())) == 1


def test_by_config() -> None:
    config = catalog.find_model("cct_2_3x2_32").config
    model = create_model(config, image_size=16, depth=1)
    assert (
        type(model.backbone).__name__ == "CCT"
        and model.config.image_size == (16, 16)
        and config.image_size == (32, 32)
    )


def test_without_a_seed_the_global_generator_is_used() -> None:
    torch.manual_seed(3)
    first = create_model("vit_nano").state_dict()
    torch.manual_seed(3)
    second = create_model("vit_nano").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_empty_model_costs_nothing() -> None:
    model = empty_model(catalog.find_model("vit_h14").config, num_classes=1000)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == 632_045_800


def test_stochastic_depth_grows_linearly() -> None:
    blocks: Any = create_model("vit_nano", depth=5, drop_path=0.2).get_submodule("backbone.blocks")
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_the_dropout_after_positions() -> None:
    model = create_model("vit_nano", dropout=0.5, depth=1).train()
    from tesela.layers.trace import Trace

    trace = Trace()
    model(torch.randn(32, 1, 8, 8), trace=trace)
    assert (trace.tensors["positions"] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_unknown_names_and_strangers() -> None:
    with pytest.raises(UnknownNameError, match="vit_b61"):
        create_model("vit_b61")
    with pytest.raises(ConfigError, match="dropuot"):
        create_model("vit_b16", dropuot=0.1)

    class Stranger(ViTConfig):
        """Of no registered family."""

    with pytest.raises(ConfigError, match="Stranger belongs to no family"):
        empty_model(Stranger(), num_classes=2)
