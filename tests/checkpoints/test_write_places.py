"""Families and formats: each is written, or refused by its name with a hint; none fails otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tesela as ts
from tesela.checkpoints.foreign import image_spec
from tesela.core.errors import WeightsError
from tesela.models import catalog
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

#: Formats in which each family of classifiers has a place.
PLACES = {
    "vit_ti16": {"hf", "timm"},
    "deit_ti16": {"hf", "timm"},
    "r_vit_ti32": {"jax"},  # timm computes hybrids with another arithmetic
    "cct_2_3x2_32": set(),
    "resnet18": {"hf", "timm"},
    "convnext_tiny": {"hf", "timm"},
    "swin_tiny": {"hf", "timm"},
    "tiny_vit_5m": {"timm"},
    "segformer_b0": {"hf"},
    "unet_small": set(),
}
#: What makes them small.
SMALL: dict[str, dict[str, Any]] = {
    "vit_ti16": {"depth": 1, "width": 12, "heads": 2, "image_size": (32, 32)},
    "deit_ti16": {"depth": 1, "width": 12, "heads": 2, "image_size": (32, 32)},
    "r_vit_ti32": {"depth": 1, "width": 12, "heads": 2, "image_size": (32, 32), "activation": "gelu_tanh"},
    "cct_2_3x2_32": {"depth": 1},
    "resnet18": {"stages": (1, 1, 1, 1), "image_size": (32, 32)},
    "convnext_tiny": {"widths": (8, 8, 12, 16), "depths": (1, 1, 1, 1), "image_size": (32, 32)},
    "swin_tiny": {"widths": (8, 16), "depths": (1, 2), "heads": (1, 2), "windows": (4, 4)},
    "tiny_vit_5m": {"widths": (8, 12), "depths": (1, 1), "heads": (2,), "windows": (3,)},
    "segformer_b0": {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)},
    "unet_small": {},
}
SMALL["swin_tiny"]["image_size"] = SMALL["tiny_vit_5m"]["image_size"] = (32, 32)


def test_every_family_is_tried() -> None:
    families = {catalog.find_model(name).family for name in catalog.model_names()}
    assert {catalog.find_model(name).family for name in PLACES} == families


@pytest.mark.parametrize("name", PLACES)
def test_each_format_takes_it_or_says_why_not(tmp_path: Path, name: str) -> None:
    config = replace(catalog.find_model(name).config, **SMALL[name])
    model = create_model(config, num_classes=3, seed=0).eval()
    labels, image = ["a", "b", "c"], image_spec(config.image_size, config.channels)
    write_bundle(tmp_path / "m", model, describe(model, name="m", labels=labels, image=image))
    for to in ("hf", "timm", "jax"):
        if to in PLACES[name]:
            report: Any = ts.export(tmp_path / "m", to=to, out=tmp_path / to)
            assert "here" in report.proved
        else:
            with pytest.raises(WeightsError, match=r"no place for|has no") as caught:
                ts.export(tmp_path / "m", to=to, out=tmp_path / to)
            assert caught.value.hint and not (tmp_path / to).exists()
