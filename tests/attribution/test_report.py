"""Pictures for a report: one PNG per image, the same as the overlay of a direct call."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tesela.attribution.draw.heatmap import overlay
from tesela.attribution.draw.report import explain_for_report
from tesela.attribution.explain import explain
from tesela.core.errors import UsageError
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model

SPEC = ImageSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))


def small() -> Classifier:
    """A model for digits whose head is not zero."""
    model: Any = create_model("vit_nano", num_classes=3, seed=0).eval()
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    made: Classifier = model
    return made


def test_pictures_equal_the_direct_way(tmp_path: Path) -> None:
    """Reference: explain and overlay called by hand.

    The bundle's callable gives the same bytes as the model.
    """
    model = small()
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    pictures = explain_for_report(model, images, spec=SPEC, side=64)
    expected = explain(model, torch.from_numpy(preprocess(list(images), SPEC))).map[:, 0].numpy()
    assert pictures == [
        overlay(image, heat, seen=np.ones((8, 8), bool), side=64)
        for image, heat in zip(images, expected, strict=True)
    ]
    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(64, 64)] * 3
    assert len(set(pictures)) == 3
    write_bundle(
        tmp_path / "run" / "bundle", model, describe(model, name="small", labels=["a", "b", "c"], image=SPEC)
    )
    loaded, _ = load_bundle(tmp_path / "run" / "bundle")
    assert explain_for_report(loaded, images, side=64) == pictures
    assert explain_for_report(loaded, images[:0]) == []


def test_a_model_without_a_spec_is_refused() -> None:
    """A model that was only created does not know how it sees an image."""
    with pytest.raises(UsageError, match="how it sees"):
        explain_for_report(small(), np.zeros((1, 8, 8, 1), np.uint8))
