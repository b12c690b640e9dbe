"""Augmentation against Pillow, SciPy and brute force, and its independence of everything but (seed, epoch,
index)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from tesela.core.errors import ConfigError
from tesela.data.augment import color as tone
from tesela.data.augment import geometry
from tesela.data.augment.augment import Augment, normalized
from tesela.data.augment.mixup import mix_images
from tesela.data.augment.policy import OPERATIONS, TONES, randaugment, trivialaugment
from tesela.data.config import AugmentConfig
from tesela.data.random import permutation, uniforms
from tesela.data.targets import LabelTargets
from tesela.imaging.preprocess import normalize
from tesela.imaging.spec import ImageSpec

SPEC = ImageSpec(height=32, width=24, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
EVERYTHING = AugmentConfig(
    hflip=0.5,
    vflip=0.3,
    crop_padding=4,
    random_resized_crop=True,
    color_jitter=0.4,
    rotation=20,
    translation=0.1,
    zoom=0.2,
    shear=5,
    perspective=0.3,
    randaugment=2,
    erasing=0.5,
)


def batch(count: int = 8, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth random images, uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (count, channels, 8, 6), np.uint8)
    return torch.from_numpy(small.repeat(4, axis=2).repeat(4, axis=3))


def pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images]


def difference(images: Tensor, expected: list[Image.Image]) -> int:
    """Largest difference in grey levels."""
    arrays = np.stack([np.asarray(image) for image in expected]).transpose(0, 3, 1, 2).astype(int)
    return int(np.abs(images.numpy().astype(int) - arrays).max())


@pytest.mark.parametrize(
    "config", [EVERYTHING, AugmentConfig(trivialaugment=True), AugmentConfig(randaugment=3, magnitude=20)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_result_depends_on_seed_epoch_and_index_only(config: AugmentConfig, channels: int) -> None:
    spec = dataclasses.replace(SPEC, channels=channels, mean=SPEC.mean[:channels], std=SPEC.std[:channels])
    images, rows = batch(40, channels), np.arange(100, 140)
    augment = Augment(config, spec)
    whole = augment(images, seed=3, epoch=2, indices=rows)
    assert whole.shape == images.shape
    assert whole.dtype == torch.uint8
    order = np.random.default_rng(1).permutation(40)
    for part in (order[:1], order[1:8], order[8:]):
        assert torch.equal(
            augment(images[part], seed=3, epoch=2, indices=torch.from_numpy(rows[part])), whole[part]
        )
    assert not torch.equal(augment(images, seed=3, epoch=3, indices=rows), whole)
    assert not torch.equal(augment(images, seed=4, epoch=2, indices=rows), whole)
    assert torch.equal(images, batch(40, channels))


def test_flip_and_padded_crop_equal_numpys_pad_and_slice() -> None:
    images = batch(30)
    random = np.random.default_rng(0)
    hflip, vflip = random.random(30) < 0.5, random.random(30) < 0.5
    moves = random.integers(-4, 5, (30, 2))
    for mode, reflect in (("reflect", True), ("constant", False)):
        result = geometry.flip_and_crop(
            images, hflip=hflip, vflip=vflip, moves=moves, reflect=reflect
        ).numpy()
        for image, h, v, (down, right), found in zip(
            images.numpy(), hflip, vflip, moves, result, strict=True
        ):
            flipped = image[:, :: -1 if v else 1, :: -1 if h else 1]
            padded = np.pad(flipped, ((0, 0), (4, 4), (4, 4)), mode=mode)  # type: ignore[call-overload]
            assert np.array_equal(found, padded[:, 4 + down : 36 + down, 4 + right : 28 + right])


def test_flip_without_crop_mirrors_the_drawn_share() -> None:
    images = batch(200)
    result = Augment(AugmentConfig(hflip=0.5), SPEC)(images, seed=0, epoch=0, indices=np.arange(200))
    mirrored = sum(
        torch.equal(after, before.flip(2)) and not torch.equal(after, before)
        for before, after in zip(images, result, strict=True)
    )
    assert 70 < mirrored < 130


def test_rotation_is_counter_clockwise_and_equals_pillow() -> None:
    """A smooth image: Pillow's fixed-point bilinear filter differs from torch's by a few levels there."""
    y, x = np.mgrid[:32, :32]
    image = np.stack([y * 8, x * 8, (x + y) * 4]).astype(np.uint8)
    images = torch.from_numpy(image)[None]
    result = geometry.warp(images, geometry.rotate(np.array([30.0])), torch.zeros(3, 1, 1))
    expected = (
        np.asarray(pictures(images)[0].rotate(30, Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(int)
    )
    inner = (slice(None), slice(8, 24), slice(8, 24))
    assert np.abs(result[0].numpy().astype(int)[inner] - expected[inner]).max() <= 3


def test_maps_compose_in_order_of_application() -> None:
    """Shift by 5, then enlarge twice: a point 3 right of the centre ends at (3 + 5) * 2."""
    maps = geometry.shift(np.array([5.0]), np.array([0.0])) @ geometry.scale(np.array([2.0]), np.array([2.0]))
    assert (maps[0] @ np.array([16.0, 0.0, 1.0])).tolist() == [3.0, 0.0, 1.0]


def test_whole_shift_moves_pixels_and_fills_with_the_mean() -> None:
    images = batch(2)
    fill = torch.tensor([10.0, 20.0, 30.0]).view(-1, 1, 1)
    result = geometry.warp(images, geometry.shift(np.array([3.0, 0.0]), np.array([2.0, 0.0])), fill)
    assert torch.equal(result[0, :, 2:, 3:], images[0, :, :-2, :-3])
    assert result[0, :, 0, 0].tolist() == [10, 20, 30]
    assert torch.equal(result[1], images[1])


def test_perspective_puts_the_corners_where_they_were_moved() -> None:
    moves = np.random.default_rng(0).uniform(0, 6, (5, 4, 2))
    maps = geometry.perspective(moves, (32, 24))
    corners = np.array([(-12, -16), (12, -16), (12, 16), (-12, 16)])
    for homography, move in zip(maps, moves, strict=True):
        for corner, inward in zip(corners, move, strict=True):
            point = homography @ np.append(corner - np.sign(corner) * inward, 1)
            assert np.allclose(point[:2] / point[2], corner)


def test_crop_boxes_have_the_asked_area_and_aspect_and_lie_inside() -> None:
    sizes = np.random.default_rng(0).integers(20, 400, (2000, 2))
    draws = uniforms(0, 0, np.arange(2000), "test", 22)
    top, left, height, width = geometry.crop_boxes(sizes, draws, area=(0.3, 0.5), aspect=(0.8, 1.25)).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()
    normal = (sizes.max(1) / sizes.min(1) < 1.5) & (sizes.min(1) > 60)
    share = (height * width / sizes.prod(1))[normal]
    assert 0.29 < share.min() < 0.32
    assert 0.48 < share.max() < 0.51
    assert (width / height)[normal].min() > 0.77
    assert (width / height)[normal].max() < 1.3


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_equal_pillow(name: str, reference: Any) -> None:
    """Within 2 levels: Pillow cuts decimals off, and rounds the mean and the smoothed image first."""
    images, factors = batch(6), np.array([0.0, 0.3, 1.0, 1.4, 1.9, 0.7])
    expected = [
        reference(image).enhance(factor) for image, factor in zip(pictures(images), factors, strict=True)
    ]
    assert difference(TONES[name](images, factors), expected) <= 2


def test_table_operations_equal_pillow() -> None:
    images = batch(4) // 2 + 30
    none = np.zeros(4)
    assert (
        difference(tone.equalize(images, none), [ImageOps.equalize(image) for image in pictures(images)]) == 0
    )
    assert (
        difference(
            tone.autocontrast(images, none), [ImageOps.autocontrast(image) for image in pictures(images)]
        )
        <= 1
    )
    bits, thresholds = np.array([1.0, 3.0, 4.0, 8.0]), np.array([0.0, 100.0, 128.0, 256.0])
    assert (
        difference(
            tone.posterize(images, bits),
            [ImageOps.posterize(i, int(b)) for i, b in zip(pictures(images), bits, strict=True)],
        )
        == 0
    )
    expected = [
        ImageOps.solarize(image, int(level))
        for image, level in zip(pictures(images), thresholds, strict=True)
    ]
    assert difference(tone.solarize(images, thresholds), expected) == 0
    flat = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(tone.equalize(flat, none[:1]), flat)
    assert torch.equal(tone.autocontrast(flat, none[:1]), flat)


def test_hue_keeps_luma_and_a_whole_turn_changes_nothing() -> None:
    matrices = tone.hue_matrices(np.array([0.13, 1.0]))
    assert np.allclose(np.array([0.299, 0.587, 0.114]) @ matrices[0], [0.299, 0.587, 0.114])
    assert np.allclose(matrices[1], np.eye(3), atol=1e-12)
    grey = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    assert (tone.hue(grey, np.array([0.2, 0.4])).int() - 100).abs().max() <= 1


def test_policies_draw_every_operation_and_randaugment_does_what_it_says() -> None:
    draws = uniforms(0, 0, np.arange(3000), "policy", 6)
    plan = randaugment(draws, (32, 24), magnitude=15)
    assert np.bincount(plan.operations.ravel(), minlength=len(OPERATIONS)).min() > 300
    assert (plan.levels == 0.5).all()
    rotated = np.flatnonzero(
        (plan.operations[:, 0] == OPERATIONS.index("rotate")) & (plan.operations[:, 1] == 0)
    )
    angles = np.rad2deg(np.arcsin(plan.maps()[rotated, 1, 0]))
    assert np.allclose(np.abs(angles), 15)
    assert {-1, 1} == set(np.sign(angles))
    trivial = trivialaugment(draws[:, :3], (32, 24))
    assert trivial.operations.shape == (3000, 1)
    assert len(np.unique(trivial.levels)) == 31


def test_erasing_touches_a_rectangle_of_the_asked_area() -> None:
    images = torch.zeros(300, 3, 32, 24, dtype=torch.uint8)
    result = Augment(AugmentConfig(erasing=0.5, erasing_area=(0.1, 0.2)), SPEC)(
        images, seed=0, epoch=0, indices=np.arange(300)
    )
    touched = (result > 0).any(1).numpy()
    changed = touched.any((1, 2))
    assert 110 < changed.sum() < 190
    for mask in touched[changed]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / mask.size
        assert 0.07 < area < 0.23
        assert mask.sum() > 0.99 * area * mask.size - 2


def test_normalized_equals_imaging_bit_for_bit() -> None:
    images = batch(70)
    expected = normalize(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()), SPEC)
    assert np.array_equal(normalized(images, SPEC).numpy(), expected)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_agrees_with_its_targets(mixup: float, cutmix: float) -> None:
    """Images of a constant value each: the mean value of a mixed image must be the mixture of the targets."""
    config = AugmentConfig(mixup=mixup, cutmix=cutmix)
    values = torch.arange(6, dtype=torch.float32)
    shares = []
    for first in range(40):
        results = []
        for _ in range(2):
            images = values.view(-1, 1, 1, 1).expand(6, 3, 16, 16).clone()
            share = mix_images(images, config, seed=1, epoch=2, first=first)
            results.append((images, LabelTargets(tuple("abcdef")).mix(torch.arange(6), share=share)))
        mixed, soft = results[0]
        assert torch.allclose(soft.sum(1), torch.ones(6))
        assert torch.allclose(mixed.mean((1, 2, 3)), soft @ values, atol=1e-5)
        shares.append(float(soft[0, 0]))
        assert torch.equal(results[1][0], mixed)
    assert max(shares) > 0.8
    assert min(shares) < 0.4


def test_draws_are_even_and_unrelated() -> None:
    draws = uniforms(0, 0, np.arange(100_000), "a", 2)
    assert abs(draws.mean() - 0.5) < 0.003
    assert abs(np.asarray(np.corrcoef(draws.T))[0, 1]) < 0.02
    assert (
        abs(np.asarray(np.corrcoef(draws[:, 0], uniforms(0, 1, np.arange(100_000), "a")[:, 0]))[0, 1]) < 0.02
    )
    assert abs(np.asarray(np.corrcoef(draws[:-1, 0], draws[1:, 0]))[0, 1]) < 0.02
    counts = np.bincount((draws[:, 0] * 100).astype(int))
    assert ((counts - 1000) ** 2 / 1000).sum() < 160
    assert sorted(permutation(0, 0, 1000)) == list(range(1000))
    assert not np.array_equal(permutation(0, 0, 1000), permutation(0, 1, 1000))


def test_draws_never_change_between_versions() -> None:
    """Golden values: a change here breaks the exactness of every run that is resumed."""
    assert uniforms(7, 3, np.array([0, 5]), "hflip", 2).round(12).tolist() == GOLDEN
    assert permutation(1, 2, 8).tolist() == GOLDEN_ORDER


def test_config_refuses_nonsense() -> None:
    for wrong in (
        {"hflip": 1.5},
        {"mixup": -1.0},
        {"magnitude": 31},
        {"randaugment": 1, "trivialaugment": True},
        {"crop_scale": (0.5, 0.2)},
    ):
        with pytest.raises(ConfigError):
            AugmentConfig(**wrong)


GOLDEN: list[list[float]] = [[0.596753879028, 0.004242269327], [0.073588465197, 0.261063581474]]
GOLDEN_ORDER = [0, 7, 6, 4, 2, 3, 1, 5]


def test_padded_crops_move_either_way_by_at_most_the_padding() -> None:
    """Every whole number from -3 to 3, in both directions, about equally often."""
    augment = Augment(
        AugmentConfig(crop_padding=3), ImageSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
    )
    moves = augment.movement((8, 8), seed=0, epoch=0, indices=np.arange(4000)).moves
    for axis in (0, 1):
        found, counts = np.unique(moves[:, axis], return_counts=True)
        assert found.tolist() == list(range(-3, 4))
        assert counts.min() > 0.8 * 4000 / 7
