"""MAE: the encoder sees visible patches alone, and the loss is of hidden, normalised pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.pretraining.embedders import attached, batch_of, embedder, pixels

from tesela.layers.patch import unfold
from tesela.layers.token_layout import TokenLayout
from tesela.tasks.objective import Draw


def test_three_quarters_are_hidden_and_change_nothing() -> None:
    """Other pixels in the hidden patches: the same predictions, bit for bit."""
    model, values = embedder(), pixels()
    objective = attached(model, method="mae")
    places, predictions = objective.predict(model, batch_of(values), Draw(0, 0))
    assert places.shape == (4, 9)
    changed = values.clone()
    for row in range(4):
        for place in places[row].tolist():
            top, left = place // 3 * 8, place % 3 * 8
            changed[row, :, top : top + 8, left : left + 8] = (
                255 - changed[row, :, top : top + 8, left : left + 8]
            )
    assert torch.equal(objective.predict(model, batch_of(changed), Draw(0, 0))[1], predictions)
    seen = next(place for place in range(12) if place not in places[0].tolist())
    changed[0, :, seen // 3 * 8, seen % 3 * 8] = 255 - changed[0, :, seen // 3 * 8, seen % 3 * 8]
    assert not torch.equal(objective.predict(model, batch_of(changed), Draw(0, 0))[1], predictions)


def test_kept_patches_are_those_of_a_network_that_is_given_their_tokens() -> None:
    """Reference: embedding, positions and blocks called one after the other."""
    model, batch = embedder(), batch_of(pixels())
    backbone: Any = model.backbone
    kept = torch.tensor([[0, 5, 11], [1, 2, 3], [4, 6, 8], [0, 1, 2]])
    found = backbone(batch.images, kept=kept)
    tokens = backbone.prefix.with_special(backbone.patches(batch.images))
    tokens = backbone.positions(tokens, (4, 3))
    chosen = torch.stack([tokens[row, [0, *(kept[row] + 1).tolist()]] for row in range(4)])
    for block in backbone.blocks:
        chosen = block(chosen)
    torch.testing.assert_close(found.tokens, backbone.norm(chosen))
    assert TokenLayout(found.grid, found.prefix).prefix == 1


def test_the_loss_is_of_pixels_normalised_by_patch() -> None:
    """Reference: NumPy, with the unbiased variance of the authors' code."""
    model, batch = embedder(), batch_of(pixels())
    objective = attached(model, method="mae")
    places, predictions = objective.predict(model, batch, Draw(0, 0))
    flat = unfold(batch.images, (8, 8), (4, 3)).numpy().astype(np.float64)
    total = 0.0
    for row in range(4):
        for number, place in enumerate(places[row].tolist()):
            patch = flat[row, place]
            wanted = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            total += float(((predictions[row, number].detach().numpy() - wanted) ** 2).mean())
    value = float(objective.loss(model, batch, Draw(0, 0)).value.detach())
    assert value == pytest.approx(total / places.numel(), rel=1e-5)


def test_pictures_show_the_true_pixels_but_where_they_were_hidden() -> None:
    model, values = embedder().eval(), pixels()
    objective = attached(model, method="mae")
    with torch.inference_mode():
        outputs = objective.outputs(model, batch_of(values))
    picture = outputs.draw([2])[0]
    original, left, filled = (picture[:, start : start + 24] for start in (0, 24, 48))
    assert np.array_equal(original, values[2].permute(1, 2, 0).numpy())
    places, _ = objective.predict(model, batch_of(values), Draw(0, 0))
    hidden = np.zeros(12, bool)
    hidden[places[2].tolist()] = True
    mask = hidden.reshape(4, 3).repeat(8, 0).repeat(8, 1)
    assert (left[mask] == 128).all() and np.array_equal(left[~mask], original[~mask])
    assert np.array_equal(filled[~mask], original[~mask])
    assert outputs.losses.shape == (4,) and outputs.embeddings.shape == (4, 16)


@pytest.mark.parametrize("pixel_norm", [True, False])
def test_it_learns_to_rebuild(pixel_norm: bool) -> None:
    """Images with a slope in one of few directions."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.rand(16, 2, generator=generator) * 8 - 4
    down, right = torch.arange(32.0).view(1, 1, 32, 1) - 16, torch.arange(24.0).view(1, 1, 1, 24) - 12
    ramp = 128 + slopes[:, 0].view(-1, 1, 1, 1) * down + slopes[:, 1].view(-1, 1, 1, 1) * right
    model, batch = embedder(), batch_of(ramp.clamp(0, 255).round().expand(16, 3, 32, 24))
    objective = attached(model, method="mae", pixel_norm=pixel_norm)
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=3e-3)
    values = []
    for step in range(60):
        optimizer.zero_grad()
        loss = objective.loss(model, batch, Draw(0, step)).value
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert np.mean(values[-5:]) < 0.5 * values[0]
