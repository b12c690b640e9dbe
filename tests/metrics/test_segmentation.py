"""Mask scores against torchmetrics, scikit-learn and loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_jaccard_index

from tesela.imaging.mask import IGNORE
from tesela.metrics.segmentation import (
    SegmentationScores,
    block_changes,
    boundaries,
    boundary_distance,
    iou_of,
)

K = 4


def masks(
    count: int = 3, size: tuple[int, int] = (40, 56)
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Predictions and truths of smooth regions; some of the truth is ignored, class 3 is nowhere."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = generator.integers(0, K - 1, (size[0] // 8, size[1] // 8)).astype(np.uint8)
        truth = coarse.repeat(8, 0).repeat(8, 1)
        predicted = np.roll(truth, (2, 3), (0, 1))
        noise = generator.random(size) < 0.05
        predicted = np.where(noise, generator.integers(0, K - 1, size), predicted).astype(np.uint8)
        truth = truth.copy()
        truth[:3] = IGNORE
        found.append((predicted, truth))
    return found


def scored(*, boundary: bool = True) -> SegmentationScores:
    scores = SegmentationScores([f"c{index}" for index in range(K)], boundary=boundary)
    for predicted, truth in masks():
        scores.update(predicted, truth, patch=(8, 8))
    return scores


def test_equal_to_torchmetrics_and_scikit_learn() -> None:
    result = scored().result()
    predicted, truth = (np.concatenate([pair[place].ravel() for pair in masks()]) for place in (0, 1))
    seen = truth != IGNORE
    matrix = confusion_matrix(truth[seen], predicted[seen], labels=range(K))
    assert result["confusion"] == matrix.tolist()
    each = multiclass_jaccard_index(
        torch.from_numpy(predicted[seen]).long(), torch.from_numpy(truth[seen]).long(), K, average="none"
    )
    occurring = each[:3]
    assert [row["iou"] for row in result["per_class"][:3]] == pytest.approx(occurring.tolist())
    assert result["per_class"][3]["iou"] is None
    assert result["mean_iou"] == pytest.approx(float(occurring.mean()))
    assert result["pixel_accuracy"] == pytest.approx((predicted[seen] == truth[seen]).mean())
    assert result["images"] == 3 and result["pixels"] == seen.sum()


def test_equal_to_a_count_pixel_by_pixel() -> None:
    hits, union, sums = [0] * K, [0] * K, [0] * K
    for predicted, truth in masks():
        for a, b in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
            for label in range(K) if b != IGNORE else ():
                hits[label] += a == label and b == label
                union[label] += a == label or b == label
                sums[label] += (a == label) + (b == label)
    result = scored().result()
    for label in range(3):
        row = result["per_class"][label]
        assert row["iou"] == hits[label] / union[label]
        assert row["dice"] == 2 * hits[label] / sums[label]
    assert result["dice"] == pytest.approx(sum(2 * hits[label] / sums[label] for label in range(3)) / 3)


def brute_boundary(region: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """A pixel of the region is on the boundary if any pixel within the distance is not of it, or outside."""
    height, width = region.shape
    found = np.zeros_like(region)
    for row in range(height):
        for column in range(width):
            if not region[row, column]:
                continue
            for down in range(-distance, distance + 1):
                for across in range(-distance, distance + 1):
                    r, c = row + down, column + across
                    if not (0 <= r < height and 0 <= c < width) or not region[r, c]:
                        found[row, column] = True
    return found


@pytest.mark.parametrize("distance", [1, 2, 5, 30])
def test_boundaries_equal_a_search_around_each_pixel(distance: int) -> None:
    predicted, truth = masks(1, (24, 32))[0]
    for label in range(3):
        for mask in (predicted, truth):
            region = mask == label
            found = boundaries(mask, distance) & region
            assert np.array_equal(found, brute_boundary(region, distance))


def test_boundary_iou_is_that_of_the_boundaries() -> None:
    """Reference: the brute-force boundaries of all images; ignored pixels are taken out of both before."""
    distance = boundary_distance((40, 56))
    assert distance == round(0.02 * (40**2 + 56**2) ** 0.5) == 1
    intersection, union = np.zeros(K), np.zeros(K)
    for predicted, truth in masks():
        kept = np.where(truth == IGNORE, IGNORE, predicted)
        for label in range(K):
            a, b = brute_boundary(kept == label, distance), brute_boundary(truth == label, distance)
            intersection[label] += (a & b).sum()
            union[label] += (a | b).sum()
    result = scored().result()
    expected = (intersection[:3] / union[:3]).tolist()
    assert [row["boundary_iou"] for row in result["per_class"][:3]] == pytest.approx(expected)
    assert result["boundary_iou"] == pytest.approx(np.mean(expected))


def test_changes_at_patch_borders_equal_a_loop() -> None:
    predicted, truth = masks(1)[0]
    seen = truth != IGNORE
    expected = np.zeros((2, 2), np.int64)
    for row in range(40):
        for column in range(56):
            for r, c, at in ((row + 1, column, row + 1), (row, column + 1, column + 1)):
                if r < 40 and c < 56 and seen[row, column] and seen[r, c]:
                    border = int(at % 8 == 0)
                    expected[border] += int(predicted[row, column] != predicted[r, c]), 1
    assert block_changes(predicted, seen, (8, 8)).tolist() == expected.tolist()


def test_blocks_are_seen_and_smooth_borders_are_not() -> None:
    """Classes that change at patch borders only have no finite measure; a diagonal border has 1."""
    blocks = SegmentationScores(["a", "b"])
    checker = (np.indices((4, 4)).sum(0) % 2).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    checker[0, 0] ^= 1
    blocks.update(checker, checker, patch=(8, 8))
    assert blocks.result()["block_artefacts"] > 20
    smooth = SegmentationScores(["a", "b"])
    rows, columns = np.indices((64, 64))
    diagonal = (rows > columns).astype(np.uint8)
    smooth.update(diagonal, diagonal, patch=(8, 8))
    assert smooth.result()["block_artefacts"] == pytest.approx(1, abs=0.05)


def test_parts_can_be_merged_in_any_order() -> None:
    first, second = SegmentationScores(list("abcd")), SegmentationScores(list("abcd"))
    pairs = masks()
    second.update(*pairs[2], patch=(8, 8))
    for pair in pairs[:2]:
        first.update(*pair, patch=(8, 8))
    second.merge(first)
    result, whole = second.result(), scored().result()
    assert {**result, "per_class": 0} == {**whole, "per_class": 0}


def test_an_image_alone() -> None:
    predicted, truth = masks(1)[0]
    one = SegmentationScores(list("abcd"))
    one.update(predicted, truth)
    assert iou_of(predicted, truth, K) == one.result()["mean_iou"]
    assert np.isnan(iou_of(predicted, np.full_like(truth, IGNORE), K))
    assert one.result()["block_artefacts"] is None
