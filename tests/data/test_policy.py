"""Geometric operations of RandAugment and TrivialAugment against the ranges of their papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tesela.data.augment.augment import Augment
from tesela.data.augment.color import brightness, contrast, hue, jitter, saturation
from tesela.data.augment.policy import OPERATIONS, randaugment, trivialaugment
from tesela.data.config import AugmentConfig
from tesela.imaging.spec import ImageSpec

SIZE = (32, 48)


def drawn(name: str, *, positive: bool) -> np.ndarray:
    """Draws for one image that choose an operation with its largest strength."""
    operation = (OPERATIONS.index(name) + 0.5) / len(OPERATIONS)
    return np.array([[operation, 0.9 if positive else 0.1, 0.999]])


@pytest.mark.parametrize(("policy", "shear", "degrees"), [("rand", 0.3, 30.0), ("trivial", 0.99, 135.0)])
@pytest.mark.parametrize("positive", [True, False])
def test_largest_strengths(policy: str, shear: float, degrees: float, positive: bool) -> None:
    """arXiv 1909.13719 with the ranges of its code, and arXiv 2103.10158, table 6."""
    sign = 1.0 if positive else -1.0

    def maps(name: str) -> np.ndarray:
        draws = drawn(name, positive=positive)
        plan = randaugment(draws, SIZE, magnitude=30) if policy == "rand" else trivialaugment(draws, SIZE)
        found: np.ndarray = plan.maps()[0]
        return found

    assert maps("shear_x")[0, 1] == pytest.approx(sign * shear)
    assert maps("shear_y")[1, 0] == pytest.approx(sign * shear)
    assert maps("rotate")[1, 0] == pytest.approx(sign * np.sin(np.deg2rad(degrees)))
    assert maps("rotate")[0, 0] == pytest.approx(np.cos(np.deg2rad(degrees)))


def test_a_shift_stays_within_its_share_and_is_used_only_if_asked_for() -> None:
    spec = ImageSpec(height=SIZE[0], width=SIZE[1], channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    rows = np.arange(500)
    moved = Augment(AugmentConfig(translation=0.25), spec).movement(SIZE, seed=0, epoch=0, indices=rows)
    assert moved.maps is not None
    across, down = np.abs(moved.maps[:, 0, 2]), np.abs(moved.maps[:, 1, 2])
    assert 11 < across.max() <= 12 and 7 < down.max() <= 8
    assert Augment(AugmentConfig(), spec).movement(SIZE, seed=0, epoch=0, indices=rows).maps is None


def test_colour_jitter_takes_its_factors_in_order() -> None:
    """Reference: the four changes one after the other; the first three are compared with Pillow elsewhere."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator)
    factors = np.array([[0.5, 1.2, 1.6, 0.1]] * 4)
    expected = images
    for change, factor in zip((brightness, contrast, saturation, hue), factors[0], strict=True):
        expected = change(expected, np.full(4, factor))
    assert torch.equal(jitter(images, factors), expected)
    assert not torch.equal(jitter(images, factors[:, [2, 1, 0, 3]]), expected)
