"""Masked patch prediction: exact targets, shares of the corruption, the loss that it starts with."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tasks.pretraining.embedders import SPEC, attached, batch_of, embedder, pixels

from tesela.core.errors import ConfigError
from tesela.layers.patch import unfold
from tesela.tasks.objective import Draw
from tesela.tasks.pretraining.corruption import Corruption, corrupted
from tesela.tasks.pretraining.patches import fold, mean_colors, pixel_values, small_colors


def test_a_patchs_class_is_the_top_three_bits_of_its_mean_colour() -> None:
    """Worked out by hand: 64 r + 8 g + b of the levels floor(mean / 32)."""
    patches = torch.zeros(1, 3, 2, 8, dtype=torch.long)  # four patches of 2 x 2 beside one another
    patches[0, :, :, 0:2] = torch.tensor([255, 0, 31]).view(3, 1, 1)
    patches[0, 0, :, 2:4] = torch.tensor([[31, 33], [32, 32]])  # mean 32: the second level begins
    patches[0, 1, :, 2:4] = torch.tensor([[31, 32], [32, 32]])  # mean 31.75
    patches[0, 2, :, 2:4] = 224
    patches[0, :, :, 4:6] = 255
    assert mean_colors(patches, (2, 2), (1, 4)).tolist() == [[7 * 64, 64 + 7, 511, 0]]


def test_the_parts_of_a_patch_have_colours_of_their_own() -> None:
    """A patch of 8 x 8 whose sixteen parts of 2 x 2 have the levels 0 to 7, twice, in the red channel."""
    red = torch.arange(16).view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1) % 8 * 32 + 5
    image = torch.zeros(1, 3, 8, 16, dtype=torch.long)
    image[0, 0, :, 8:] = red
    found = small_colors(image, (8, 8), (1, 2), side=4)
    assert found[0, 0].tolist() == [0] * 16
    assert found[0, 1].tolist() == [64 * (place % 8) for place in range(16)]


def test_normalised_images_are_turned_back_to_the_same_numbers() -> None:
    """Every value of every channel, whatever the mean and deviation."""
    values = torch.arange(256).repeat(3, 3, 1).view(1, 3, 32, 24)
    assert torch.equal(pixel_values(batch_of(values).images, SPEC), values)


def test_fold_undoes_unfold() -> None:
    values = pixels()
    assert torch.equal(fold(unfold(values, (8, 8), (4, 3)), (8, 8), (4, 3)), values)


def test_shares_over_a_million_patches() -> None:
    """Half of the patches, of these 80 % masked, 10 % swapped, 10 % as they are: within four deviations."""
    found = corrupted(Draw(3, 5), torch.arange(1000), 1000, 500)
    assert found.places.shape == (1000, 500)
    assert (found.places.sort(1).values.diff(dim=1) > 0).all(), "a patch was chosen twice"
    other = found.sources != found.places
    masked, swapped = float(found.masked.float().mean()), float(other.float().mean())
    assert abs(masked - 0.8) < 4 * math.sqrt(0.16 / 5e5)
    assert abs(swapped - 0.1) < 4 * math.sqrt(0.09 / 5e5)
    assert not (other & found.masked).any()
    assert ((found.sources >= 0) & (found.sources < 1000)).all()
    counts = torch.bincount(found.places.flatten(), minlength=1000)
    assert (counts - 500).abs().max() < 5 * math.sqrt(1000 * 0.25)


def test_corruption_depends_on_seed_step_and_image_alone() -> None:
    whole = corrupted(Draw(3, 5), torch.arange(8), 12, 6)
    part = corrupted(Draw(3, 5), torch.tensor([6, 2]), 12, 6)
    assert torch.equal(whole.places[[6, 2]], part.places)
    assert torch.equal(whole.sources[[6, 2]], part.sources)
    assert not torch.equal(whole.places, corrupted(Draw(3, 6), torch.arange(8), 12, 6).places)


def test_tokens_are_masked_swapped_or_left() -> None:
    tokens = torch.arange(5.0).view(1, 5, 1)
    change = Corruption(
        torch.tensor([[3, 0, 1]]), torch.tensor([[True, False, False]]), torch.tensor([[3, 4, 1]])
    )
    assert change.apply(tokens, torch.tensor([9.0])).flatten().tolist() == [4, 1, 2, 9, 4]


def test_the_loss_starts_at_ln_512_and_is_over_corrupted_patches_alone() -> None:
    model, batch = embedder(), batch_of(pixels())
    objective = attached(model, method="masked")
    loss = objective.loss(model, batch, Draw(0, 0))
    assert float(loss.value.detach()) == pytest.approx(math.log(512), rel=1e-6)
    downsized = attached(model, method="masked", mask_target="downsized").loss(model, batch, Draw(0, 0))
    assert float(downsized.value.detach()) == pytest.approx(math.log(512), rel=1e-6)
    places, predictions = objective.predict(model, batch, Draw(0, 0))
    assert places.shape == (4, 6) and predictions.shape == (4, 6, 512)


def test_l2_is_of_the_corrupted_patches_pixels() -> None:
    """A head of zeros predicts zeros, so the loss is the mean square of the normalised pixels."""
    model, batch = embedder(), batch_of(pixels())
    objective = attached(model, method="masked", mask_target="pixels")
    places, _ = objective.predict(model, batch, Draw(0, 0))
    flat = unfold(batch.images, (8, 8), (4, 3))
    wanted = torch.stack([flat[row, places[row]] for row in range(4)]).square().mean()
    assert float(objective.loss(model, batch, Draw(0, 0)).value.detach()) == pytest.approx(
        float(wanted), rel=1e-6
    )


def test_it_learns_the_colours_of_patches() -> None:
    """Images of one colour each: the visible patches tell the hidden ones."""
    colors = torch.randint(0, 256, (16, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    model, batch = embedder(), batch_of(colors.expand(16, 3, 32, 24))
    objective = attached(model, method="masked")
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=1e-2)
    for step in range(80):
        optimizer.zero_grad()
        loss = objective.loss(model, batch, Draw(0, step))
        loss.value.backward()
        optimizer.step()
    assert float(loss.value.detach()) < 1.5
    assert float(loss.logs["patch_accuracy"]) > 0.6


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        ({"patch_dropout": 0.2}, {"method": "masked"}, "patch_dropout"),
        ({"patch_size": (32, 24)}, {"method": "masked"}, "a single patch"),
        ({"patch_size": (2, 2)}, {"method": "masked", "mask_target": "downsized"}, "equal parts"),
        ({"attention": "local", "window": 2}, {"method": "mae"}, "holes in the grid"),
        ({}, {"method": "mae", "decoder_width": 10}, "multiple of 4"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    network: dict[str, object], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        attached(embedder(**network), **settings)
    assert caught.value.hint


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio must lie between 0 and 1"):
        attached(embedder(), method="mae", mask_ratio=ratio)


@pytest.mark.parametrize(("ratio", "count"), [(0.01, 1), (0.5, 8), (0.75, 12), (0.99, 15)])
def test_a_share_of_less_than_a_patch_leaves_one_on_either_side(ratio: float, count: int) -> None:
    assert attached(embedder(), method="mae", mask_ratio=ratio).count(16) == count


def test_a_convolutional_stem_is_refused() -> None:
    from tesela.models import catalog
    from tesela.models.embedder import Embedder
    from tesela.models.factory import build_model

    network = catalog.resolve("cct_7_3x2_32", overrides={"width": 16, "depth": 1, "heads": 2})
    with pytest.raises(ConfigError, match="this network's tokens are not patches"):
        attached(build_model(network, Embedder, seed=0), method="masked")
