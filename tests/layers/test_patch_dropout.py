"""PatchDropout: which tokens stay, which learn, and that evaluation knows nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tesela.core.errors import ConfigError
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.kernels import KERNELS
from tesela.layers.patch_dropout import PatchDropout
from tesela.models.factory import create_model


def numbered(batch: int, count: int) -> torch.Tensor:
    """Tokens whose value tells image and place: 100 * image + place."""
    return (
        (100 * torch.arange(batch)[:, None, None] + torch.arange(count)[None, :, None])
        .float()
        .expand(-1, -1, 3)
        .clone()
    )


def test_prefix_stays_and_patches_are_a_choice_in_order() -> None:
    torch.manual_seed(0)
    kept = PatchDropout(0.5, prefix=2)(numbered(16, 2 + 40))
    assert kept.shape == (16, 2 + 20, 3)
    places = kept[:, :, 0] - 100 * torch.arange(16)[:, None]
    assert torch.equal(places[:, :2], torch.tensor([0.0, 1.0]).expand(16, 2))
    assert (places[:, 2:] >= 2).all() and (places.diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in places}) == 16


def test_every_patch_is_kept_equally_often() -> None:
    torch.manual_seed(0)
    kept = PatchDropout(0.75, prefix=1)(numbered(4000, 1 + 16))
    places = (kept[:, 1:, 0] - 100 * torch.arange(4000)[:, None]).long()
    share = torch.bincount(places.flatten(), minlength=17)[1:] / 4000
    assert (share - 0.25).abs().max() < 0.035  # five deviations


def test_gradient_reaches_only_what_was_kept() -> None:
    torch.manual_seed(0)
    tokens = numbered(3, 1 + 10).requires_grad_()
    kept = PatchDropout(0.5, prefix=1)(tokens)
    kept.sum().backward()
    assert tokens.grad is not None
    seen = torch.zeros(3, 11)
    for image in range(3):
        seen[image, (kept[image, :, 0] - 100 * image).long()] = 1
    assert torch.equal(tokens.grad[:, :, 0], seen)


def test_evaluation_sees_all_patches() -> None:
    tokens = numbered(2, 9)
    assert PatchDropout(0.5, prefix=1).eval()(tokens) is tokens
    images = torch.rand(2, 1, 28, 28)
    plain, dropping = (create_model("vit_mnist", seed=0, patch_dropout=rate).eval() for rate in (0.0, 0.5))
    assert torch.equal(plain(images), dropping(images))


def test_training_equals_a_forward_pass_over_the_kept_patches_alone() -> None:
    model: Any = create_model("vit_mnist", seed=0, patch_dropout=0.5).train()
    images = torch.rand(4, 1, 28, 28)
    torch.manual_seed(3)
    dropped = model(images)
    torch.manual_seed(3)
    chosen = torch.rand(4, 49).argsort(dim=1)[:, :24].sort(dim=1).values
    tokens = model.backbone.positions(
        model.backbone.prefix.with_special(model.backbone.patches(images)), (7, 7)
    )
    for image in range(4):
        alone = tokens[image : image + 1, torch.cat([torch.zeros(1, dtype=torch.long), chosen[image] + 1])]
        for block in model.backbone.blocks:
            alone = block(alone)
        torch.testing.assert_close(
            model.head(model.backbone.norm(alone)[:, 0]), dropped[image : image + 1], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "options",
    [
        {"position": "relative"},
        {"position": "rotary", "registers": 2},
        {"position": "learned2d", "position_at": "block", "attention": "wide", "registers": 1},
        {"position": "sincos2d", "position_at": "shared"},
    ],
    ids=lambda options: options["position"],
)
def test_positions_inside_the_blocks_go_with_the_patches(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference: all patches, with a kernel that hides the left-out ones as keys.

    What is kept then computes the same.
    """
    model: Any = create_model(
        "vit_mnist", seed=0, depth=2, width=16, heads=2, patch_dropout=0.5, **options
    ).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    images = torch.rand(3, 1, 28, 28)
    torch.manual_seed(3)
    dropped = model(images)
    torch.manual_seed(3)
    chosen = torch.rand(3, 49).argsort(dim=1)[:, :24].sort(dim=1).values
    hidden = torch.ones(3, model.config.prefix + 49, dtype=torch.bool)
    hidden[:, : model.config.prefix] = False
    hidden.scatter_(1, chosen + model.config.prefix, False)

    def hiding(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None,
        dropout: float,
        scale: float,
    ) -> torch.Tensor:
        logits = q @ k.mT * scale + (0.0 if bias is None else bias)
        return logits.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1) @ v

    monkeypatch.setitem(KERNELS, "hiding", hiding)
    set_attention_kernel(model, "hiding")
    torch.testing.assert_close(model.eval()(images), dropped, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="patch_dropout"):
        create_model("vit_mnist", patch_dropout=rate)
