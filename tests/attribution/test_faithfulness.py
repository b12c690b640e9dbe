"""Faithfulness against a plain loop over single images, SciPy's rank correlation, and models whose answer
is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.dropping import masking_mode, partial_logits
from tesela.attribution.explain import Explanation, explain
from tesela.attribution.quality.faithfulness import (
    FaithfulnessOptions,
    Probability,
    area,
    class_probabilities,
    measure_faithfulness,
)
from tesela.attribution.quality.randomised import randomised, rank_correlation
from tesela.core.errors import ConfigError
from tesela.layers.trace import OFF
from tesela.models.factory import create_model


def make(**overrides: Any) -> nn.Module:
    """A small ViT, 4 x 6 patches, weights far from zero."""
    fields = {"width": 24, "depth": 2, "heads": 3, "patch_size": (4, 4), **overrides}
    model = create_model("vit_ti16", num_classes=5, image_size=(16, 24), seed=0, **fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 16, 24, generator=torch.Generator().manual_seed(2))


def explanation(model: nn.Module, images: Tensor, tokens: Tensor, targets: Tensor) -> Explanation:
    """An explanation that consists of given tokens."""
    blank = torch.zeros(targets.shape)
    with torch.no_grad():
        known = model(images).softmax(1).gather(1, targets)
    return Explanation(
        map=tokens,
        tokens=tokens,
        prefix_mass=blank,
        scores=blank,
        probabilities=known,
        targets=targets,
        method="rollout",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pool": "mean", "registers": 2},
        {"distillation": True},
        {"position": "rotary"},
        {"position": "relative", "depth": 3},
    ],
)
def test_dropping_equals_a_run_over_the_shorter_sequence(fields: dict[str, Any]) -> None:
    """Reference: the blocks called by hand on the embedded tokens without the missing ones (where no
    position acts inside); all patches give the model's own logits in every variant.
    """
    model, images = make(**fields), pictures()
    kept = torch.tensor([[[3, 1, 8, 20]], [[0, 23, 5, 6]]])
    every = torch.arange(24).expand(2, 1, -1)
    with torch.no_grad():
        torch.testing.assert_close(
            partial_logits(model, images, every, (4, 6))[:, 0], model(images), atol=1e-5, rtol=1e-5
        )
        found = partial_logits(model, images, kept, (4, 6))[:, 0]
        if "position" in fields:
            assert (found - model(images)).abs().max() > 1e-3
            return
        network: Any = model
        whole, layout = network.backbone._embedded(images, OFF, corrupt=None, kept=None)
        prefix = layout.prefix
        for index in range(2):
            tokens = torch.cat([whole[index, :prefix], whole[index, prefix:][kept[index, 0].sort().values]])[
                None
            ]
            for block in network.backbone.blocks:
                tokens = block(tokens)
            expected = network.head(network.pool(network.backbone.norm(tokens), prefix))
            torch.testing.assert_close(found[index : index + 1], expected, atol=1e-5, rtol=1e-5)
    assert "numbers" not in vars(network.backbone.patch_dropout)


def test_filling_where_nothing_can_be_dropped() -> None:
    """Reference: pixels filled by hand with each channel's mean; axial attention and a foreign network."""
    images = pictures(1)
    kept = torch.tensor([[[0, 9]]])
    filled = images.mean((2, 3), keepdim=True).expand_as(images).clone()
    filled[:, :, :4, :4] = images[:, :, :4, :4]
    filled[:, :, 4:8, 12:16] = images[:, :, 4:8, 12:16]
    for model in (make(attention="axial"), nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 4)).eval()):
        assert masking_mode(model) == "filled"
        with torch.no_grad():
            torch.testing.assert_close(partial_logits(model, images, kept, (4, 6))[:, 0], model(filled))


def by_hand(
    model: nn.Module,
    image: Tensor,
    scores: list[float],
    target: int,
    counts: list[int],
    probability: Probability = class_probabilities,
) -> tuple[float, float, float]:
    """Deletion, insertion and lead of one map by sorting and calling."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))

    def said(patches: list[int]) -> float:
        logits = partial_logits(model, image[None], torch.tensor([[patches]]), (4, 6))
        return float(probability(logits[0, 0])[target])

    high = [said(order[:count]) for count in counts]
    low = [said(order[-count:]) for count in counts]
    width = counts[-1] - counts[0]
    deletion, insertion = (float(np.trapezoid(values, counts)) / width for values in (low, high))
    return deletion, insertion, said(order[:6]) - said(order[-6:])


def test_figures_equal_a_plain_loop() -> None:
    """Two images, two classes, a random map each, against one call per choice."""
    model, images = make(), pictures()
    tokens = torch.rand(2, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([[1, 4], [0, 2]])
    options = FaithfulnessOptions(shares=(0.125, 0.5), weights=False)
    found = measure_faithfulness(model, images, explanation(model, images, tokens, targets), options=options)
    for image in range(2):
        for place in range(2):
            expected = by_hand(
                model,
                images[image],
                tokens[image, place].flatten().tolist(),
                int(targets[image, place]),
                [1, 3, 6, 12, 24],
            )
            ours = found.figures(image, place)
            assert (ours["deletion"], ours["insertion"], ours["lead"]) == pytest.approx(expected, abs=2e-6)
            assert ours["weights"] is None
            assert ours["how"] == "dropped"
    sigmoid = measure_faithfulness(
        model, images, explanation(model, images, tokens, targets), options=options, probability=torch.sigmoid
    )
    expected = by_hand(
        model, images[1], tokens[1, 0].flatten().tolist(), 0, [1, 3, 6, 12, 24], probability=torch.sigmoid
    )
    assert (
        float(sigmoid.deletion[1, 0]),
        float(sigmoid.insertion[1, 0]),
        float(sigmoid.lead[1, 0]),
    ) == pytest.approx(expected, abs=2e-6)
    alone = measure_faithfulness(
        model, images[1:], explanation(model, images[1:], tokens[1:], targets[1:]), options=options
    )
    torch.testing.assert_close(alone.percentile, found.percentile[1:])


def test_area_by_hand() -> None:
    """Trapezoids over uneven steps: (1 * 3 + 2 * 4) / 2 ...

    = 0.5 * (0 + 1) * 2 + 0.5 * (1 + 3) * 4, over 6.
    """
    assert float(area([1, 3, 7], torch.tensor([0.0, 1.0, 3.0]))) == pytest.approx((1 + 8) / 6)


def bright() -> nn.Module:
    """Says class 1 the surer the brighter the patches it sees are on average."""
    model = make(pool="mean", depth=1, position="none", final_norm=False)
    network: Any = model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        network.backbone.patches.weight[0] = 1 / 48
        network.head.linear.weight[1, 0] = 8.0
    return model


def test_the_true_map_is_faithful_and_its_opposite_is_not() -> None:
    """Brightness is what this model uses: its map leads every random one; turned round, none.

    A flat map says nothing.
    """
    model, images = bright(), pictures(1)
    truth = images.unfold(2, 4, 4).unfold(3, 4, 4).mean((1, 4, 5))[:, None]
    targets = torch.tensor([[1]])
    options = FaithfulnessOptions(weights=False)
    best = measure_faithfulness(model, images, explanation(model, images, truth, targets), options=options)
    worst = measure_faithfulness(model, images, explanation(model, images, -truth, targets), options=options)
    assert best.percentile.item() == 1.0
    assert best.faithful.item()
    assert worst.percentile.item() == 0.0
    assert not worst.faithful.item()
    assert best.insertion > best.deletion
    torch.testing.assert_close(best.insertion, worst.deletion)
    constant = measure_faithfulness(
        model,
        torch.ones(1, 3, 16, 24),
        explanation(model, torch.ones(1, 3, 16, 24), truth, targets),
        options=options,
    )
    assert constant.percentile.item() == 0.5
    assert not constant.faithful.item()


def test_chance_is_uniform_over_random_maps() -> None:
    """Percentiles of 200 random maps of one image spread over 0 to 1, and about 5 % pass by chance."""
    model, images = bright(), pictures(1).expand(200, -1, -1, -1)
    tokens = torch.rand(200, 1, 4, 6, generator=torch.Generator().manual_seed(5))
    given = explanation(model, images, tokens, torch.ones(200, 1, dtype=torch.long))
    found = measure_faithfulness(
        model, images, given, options=FaithfulnessOptions(weights=False, random_maps=96)
    )
    assert float(found.percentile.mean()) == pytest.approx(0.5, abs=0.08)
    assert found.faithful.float().mean() <= 0.12


def test_rank_correlation_equals_scipys() -> None:
    """Reference: scipy.stats.spearmanr, with ties; NaN for a flat side."""
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 6, (20, 17)).astype(float), draw.normal(size=(20, 17))
    ours = rank_correlation(torch.from_numpy(one), torch.from_numpy(other))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)
    assert rank_correlation(torch.ones(3), torch.arange(3.0)).isnan()


def test_randomised_weights_keep_their_scale_and_leave_the_model_alone() -> None:
    """Mean and deviation of each matrix, the values of each vector; nothing of the order."""
    model = make()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    twin = randomised(model, seed=7)
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, before[name])
        assert not torch.equal(one, other)
        if one.ndim < 2:
            assert torch.equal(one.sort().values, other.sort().values)
        elif one.numel() > 500:
            assert other.detach().std().item() == pytest.approx(one.detach().std().item(), rel=0.15)
            assert (
                abs(np.corrcoef(one.detach().flatten().numpy(), other.detach().flatten().numpy())[0, 1]) < 0.2
            )


def test_weights_figure_is_the_correlation_with_the_twins_map() -> None:
    """Each image is explained for its own class; reference: one call per image."""
    model, images = make(), pictures(3)
    found = explain(model, images)
    with undisturbed(model):
        figures = measure_faithfulness(model, images, found)
    for index in range(3):
        again = explain(
            randomised(model, seed=0), images[index : index + 1], int(found.targets[index, 0]), found.method
        )
        expected = spearmanr(found.tokens[index].flatten(), again.tokens.flatten()).statistic
        assert float(figures.weights[index, 0]) == pytest.approx(expected, abs=1e-4)


def test_one_patch_cannot_be_measured() -> None:
    """NaN becomes None, and such a map is not called faithful."""
    model = create_model(
        "vit_ti16", num_classes=3, image_size=(4, 4), seed=0, width=8, depth=1, heads=1, patch_size=(4, 4)
    ).eval()
    image = torch.zeros(1, 3, 4, 4)
    figures = measure_faithfulness(model, image, explain(model, image)).figures(0, 0)
    assert figures["percentile"] is None
    assert not figures["faithful"]


@pytest.mark.parametrize("fields", [{"shares": ()}, {"shares": (1.0,)}, {"random_maps": 10}, {"level": 0.2}])
def test_refused_options(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(FaithfulnessOptions(), **fields)
