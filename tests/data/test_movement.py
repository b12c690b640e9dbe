"""Masks follow their images through every geometric augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tesela.data.augment.augment import Augment
from tesela.data.augment.geometry import flip_and_crop
from tesela.data.config import AugmentConfig
from tesela.imaging.spec import ImageSpec

SPEC = ImageSpec(height=24, width=32, channels=1, mean=(0.0,), std=(1.0,))
GEOMETRY = {
    "flips": AugmentConfig(hflip=0.5, vflip=0.5),
    "crops": AugmentConfig(crop_padding=4),
    "rotation": AugmentConfig(rotation=20.0, hflip=0.5),
    "everything": AugmentConfig(rotation=15.0, translation=0.1, crop_padding=2, hflip=0.5, vflip=0.5),
}


@pytest.mark.parametrize("config", GEOMETRY.values(), ids=GEOMETRY)
def test_a_mask_moves_as_its_image_does(config: AugmentConfig) -> None:
    """Reference: an image whose grey level is its mask's class.

    Away from borders of classes, where the image is interpolated, both show the same class.
    """
    masks = torch.zeros(16, 24, 32, dtype=torch.int64)
    masks[:, 6:18, 8:20] = 1
    masks[:, 10:16, 18:28] = 2
    movement = Augment(config, SPEC).movement(SPEC.size, seed=3, epoch=1, indices=np.arange(16))
    images = movement.images((masks * 100).to(torch.uint8)[:, None], torch.zeros(1, 1, 1))[:, 0]
    moved = movement.masks(masks, outside=0)
    assert moved.dtype == masks.dtype and set(moved.unique().tolist()) <= {0, 1, 2}
    pure = images % 100 == 0
    assert pure.float().mean() > 0.75
    # a mixture can hit a level by chance
    assert (moved[pure] == (images // 100)[pure]).float().mean() > 0.998
    assert not torch.equal(moved, masks)


def test_what_lies_outside_has_the_value_that_was_asked_for() -> None:
    """Cropping with black padding brings the border in; for a mask that is the value to ignore."""
    masks = torch.ones(8, 24, 32, dtype=torch.int64)
    movement = Augment(AugmentConfig(crop_padding=6, crop_fill="zero"), SPEC).movement(
        SPEC.size, seed=0, epoch=0, indices=np.arange(8)
    )
    images = movement.images(torch.full((8, 1, 24, 32), 9, dtype=torch.uint8), torch.zeros(1, 1, 1))[:, 0]
    moved = movement.masks(masks, outside=255)
    assert torch.equal(moved == 255, images == 0)
    assert 0 < (moved == 255).float().mean() < 0.5


def test_a_border_wider_than_the_image_is_mirrored_again_and_again() -> None:
    """Reference: NumPy's padding by reflection."""
    image = np.arange(5 * 4, dtype=np.uint8).reshape(5, 4)
    wide = np.pad(image, 9, mode="reflect")
    for down, right in ((-9, 3), (8, -7), (9, 9)):
        moved = flip_and_crop(
            torch.from_numpy(image)[None, None],
            hflip=np.array([False]),
            vflip=np.array([False]),
            moves=np.array([[down, right]]),
            reflect=True,
        )
        assert np.array_equal(moved[0, 0].numpy(), wide[9 + down : 14 + down, 9 + right : 13 + right])
