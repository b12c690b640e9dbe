"""Representatives of the families: they exist at their sizes, and cost about the same where this is said."""

from __future__ import annotations

from typing import Any

import pytest

from tesela.core.errors import ConfigError, UnknownNameError
from tesela.models.catalog import resolve
from tesela.studies.families import REPRESENTATIVES, family_candidate, family_candidates


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 224])
def test_each_representative_takes_images_of_its_size(side: int) -> None:
    found = family_candidates((), side)
    assert len(found) == 4 - (side == 224)
    for one in found:
        config: Any = resolve(
            one.model, num_classes=10, image_size=(side, side), channels=3, overrides=dict(one.net)
        )
        assert config.parameter_count(10) > 1e5


def test_the_families_cost_the_same_at_32_pixels() -> None:
    costs = {}
    for word in REPRESENTATIVES:
        one = family_candidate(word, 32)
        config: Any = resolve(
            one.model, num_classes=10, image_size=(32, 32), channels=3, overrides=dict(one.net)
        )
        costs[word] = config.flops(10) / 1e9
    assert all(0.47 <= cost <= 0.54 for cost in costs.values()), costs


def test_settings_follow_the_name() -> None:
    one = family_candidate("vit:depth=2:pool=mean", 32)
    assert one.settings == {"model": "vit_lite7_p4", "net.depth": 2, "net.pool": "mean"}
    assert family_candidate("cnn:width_factor=0.5", 32).net == {"width_factor": 0.5}


@pytest.mark.parametrize(
    ("word", "side", "error", "said"),
    [
        ("cct", 224, ConfigError, "there is no cct for images of 224 px"),
        ("vit:width=30", 32, ConfigError, "not divisible"),
        ("vit:=3", 32, ConfigError, "no model with settings"),
        ("resnet", 32, UnknownNameError, "unknown model 'resnet'"),
    ],
)
def test_what_does_not_exist_is_refused(word: str, side: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        family_candidate(word, side)
