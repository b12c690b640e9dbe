"""Hybrids: names by total down-sampling, published counts, and the residual network against transformers'
for sizes with odd padding."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import BitBackbone, BitConfig

from tesela.core.errors import ConfigError
from tesela.models import catalog
from tesela.models.factory import create_model
from tesela.models.hybrid.config import HybridConfig

# 1000 classes at 224 px, as the published checkpoints of arXiv 2106.10270 and 2010.11929 have it (R50+B/16,
# R+Ti/16, R26+S/32, R50+L/32); R26+B/32 as another implementation (timm 1.0) counts it.
COUNTS = {
    "r_vit_ti32": 6_337_704,
    "r26_vit_s32": 36_431_912,
    "r26_vit_b32": 101_383_976,
    "r50_vit_b16": 98_659_112,
    "r50_vit_l32": 328_994_856,
}

RENAMED = {
    "embedder.": "root.",
    "convolution": "conv",
    "downsample.conv": "projection",
    "downsample.norm": "projection_norm",
}


def find(name: str) -> HybridConfig:
    config = catalog.find_model(name).config
    assert isinstance(config, HybridConfig)
    return config


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_counts(name: str, count: int) -> None:
    assert find(name).parameter_count(1000) == count


def test_the_number_in_a_name_is_the_total_down_sampling() -> None:
    names = [name for name in catalog.model_names() if catalog.find_model(name).family == "hybrid"]
    assert {"r50_vit_b16", "r50_vit_b32", "r50_vit_l32", "r26_vit_b32", "r_vit_ti16"} <= set(names)
    for name in names:
        pixels = int(re.findall(r"\d+", name)[-1])
        height, width = find(name).image_size
        assert find(name).down_sampling == (pixels, pixels) and find(name).grid() == (
            height // pixels,
            width // pixels,
        ), name


def test_the_two_options_of_the_paper() -> None:
    """Section 4.1: (ii) drops stage 4, moves its units to stage 3, and has a sequence four times as long."""
    regular, moved = find("r50_vit_b32"), find("r50_vit_b16")
    assert regular.stages == (3, 4, 6, 3) and moved.stages == (3, 4, 9)
    assert sum(regular.stages) == sum(moved.stages)
    assert 4 * regular.grid()[0] * regular.grid()[1] == moved.grid()[0] * moved.grid()[1] == 196
    assert regular.patch_size == moved.patch_size == (1, 1)


@pytest.mark.parametrize("stages", [(), (2,), (1, 2), (1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("size", [(64, 64), (57, 83)])
def test_the_feature_map_is_that_of_transformers(stages: tuple[int, ...], size: tuple[int, int]) -> None:
    """BiT with the norm after the convolution and padding SAME, all epsilons tiny beside its random
    weights; any number of stages."""
    theirs = BitConfig(
        embedding_size=8,
        hidden_sizes=[32, 64, 128, 256][: max(1, len(stages))],
        depths=list(stages) or [1],
        num_groups=4,
        layer_type="bottleneck",
        global_padding="SAME",
        embedding_dynamic_padding=True,
        out_features=[f"stage{len(stages)}" if stages else "stem"],
    )
    reference = BitBackbone(theirs).eval()
    for index, parameter in enumerate(reference.parameters()):
        torch.nn.init.normal_(
            parameter, std=3.0 if parameter.ndim > 1 else 1.0, generator=torch.Generator().manual_seed(index)
        )
    own = {}
    for name, tensor in reference.state_dict().items():
        place = name.removeprefix("bit.").removeprefix("encoder.").replace(".layers.", ".")
        for foreign, ours in RENAMED.items():
            place = place.replace(foreign, ours)
        own[place] = tensor
    if not stages:
        own = {name: tensor for name, tensor in own.items() if name.startswith("root")}
    model = create_model(
        "r50_vit_b16", stages=stages, width_factor=0.125, norm_groups=4, width=12, heads=2, depth=1
    )
    body = model.get_submodule("backbone.patches.backbone").eval()
    body.load_state_dict({name: tensor for name, tensor in own.items() if not name.startswith("norm.")})
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = body(images)[-1], reference(images).feature_maps[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_patches_of_the_feature_map() -> None:
    """Patches of 1x2 cells: rows of the map stay, columns are halved.

    The projection is a strided convolution of the map.
    """
    model = create_model(
        "r_vit_ti16",
        image_size=(24, 48),
        patch_size=(1, 2),
        width=12,
        heads=2,
        depth=1,
        width_factor=0.125,
        norm_groups=4,
        seed=0,
    )
    stem, images = model.get_submodule("backbone.patches"), torch.randn(2, 3, 24, 48)
    cells = stem.get_submodule("backbone")(images)[-1]
    weight, bias = stem.get_parameter("projection.weight"), stem.get_parameter("projection.bias")
    wanted = torch.nn.functional.conv2d(cells, weight, bias, stride=(1, 2)).flatten(2).mT
    torch.testing.assert_close(stem(images), wanted)
    assert model.grid((24, 48)) == (6, 6)


def test_compact_ones_fit_small_images() -> None:
    for name in ("r11_vit_mini4", "r20_vit_mini4", "r14_vit_mini8"):
        for side in (28, 32, 48, 64):
            config = catalog.resolve(name, image_size=side, channels=1)
            pixels = find(name).down_sampling[0]
            assert config.grid() == (-(-side // pixels), -(-side // pixels))
            assert config.parameter_count(10) < 5e6


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"patch_size": 4}, "14x14", "256x256"),
        ({"patch_size": 0}, "patch_size", "cells"),
        ({"stages": (3, 0)}, "a stage without units", "leave the stage out"),
        ({"width_factor": 0.25}, "32 groups do not divide 16 channels", "norm_groups=16"),
        ({"heads": 5}, "not divisible by 5 heads", "use 4 heads"),
    ],
)
def test_what_is_refused(overrides: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        catalog.resolve("r50_vit_b16", overrides=overrides)
    assert hint in caught.value.hint
