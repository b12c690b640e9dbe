"""Scorers from arrays, for machines without torch, against those from tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.evaluation.model import parameter_count
from tesela.evaluation.program import parameters_of
from tesela.imaging.mask import IGNORE
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe
from tesela.models.factory import create_segmenter
from tesela.tasks.catalog import find_task

LABELS = ["sky", "road", "tree"]
SMALL: dict[str, Any] = {"widths": [8, 16, 24, 32], "heads": [1, 2, 3, 4], "reductions": [4, 2, 1, 1]}


def test_a_segmenter_that_crops_is_refused() -> None:
    """Its masks would be a guess where it did not look."""
    model = create_segmenter("segformer_b0", num_classes=3, image_size=(32, 48), seed=0, **SMALL)
    spec = ImageSpec(height=32, width=48, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize="crop")
    with pytest.raises(ConfigError, match="must see all of an image"):
        describe(model, name="small", labels=LABELS, image=spec, task="segment")


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_masks_at_their_own_sizes(resize: str) -> None:
    """Reference: ``SegmentationScorer``; void pixels, images of several shapes, boundaries and blocks."""
    model = create_segmenter("segformer_b0", num_classes=3, image_size=(32, 48), seed=0, **SMALL)
    spec = ImageSpec(height=32, width=48, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize=resize)  # type: ignore[arg-type]
    info = describe(model, name="small", labels=LABELS, image=spec, task="segment")
    task, random = find_task("segment"), np.random.default_rng(0)
    wanted = task.scorer(LABELS, **task.scorer_facts(model, info))
    found = task.array_scorer(info)
    assert found is not None
    for number in range(3):
        logits = random.standard_normal((2, 3, 8, 12), dtype=np.float32).repeat(4, 2).repeat(4, 3)
        sizes = [(40 + 7 * number, 70), (33, 50 + number)]
        truth = [random.integers(0, 3, size).astype(np.uint8) for size in sizes]
        truth[0][:5] = IGNORE
        batch = Batch(
            images=torch.zeros(2, 3, 32, 48),
            targets=torch.zeros(2, 32, 48, dtype=torch.uint8),
            indices=torch.arange(2),
            full=tuple(map(torch.from_numpy, truth)),
        )
        wanted.update(batch, torch.from_numpy(logits))
        found.update(logits, truth)
    left, right = wanted.result(), found.result()
    assert left.keys() == right.keys()
    for name in ("images", "pixels"):
        assert left[name] == right[name]
    for name in ("mean_iou", "pixel_accuracy", "boundary_iou", "dice", "block_artefacts"):
        assert right[name] == pytest.approx(left[name], abs=2e-3), name
    assert parameters_of(info) == parameter_count(model)
