"""The linear surrogate against its formulas, and the default map on networks that are sure of their answer.

The maps are judged by insertion minus deletion, which is what a map of a sure network has to get right.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from tests.attribution.foreign_models import make as make_foreign
from tests.attribution.test_explain import make, pictures
from torch import Tensor, nn

from tesela.attribution.capture.dropping import partial_logits
from tesela.attribution.explain import explain
from tesela.attribution.methods.surrogate import PENALTY, around, log_odds, split_halves
from tesela.attribution.quality.faithfulness import FaithfulnessOptions, measure_faithfulness
from tesela.attribution.question import Question
from tesela.core.errors import UsageError
from tesela.models.factory import create_model

#: Images on which maps are judged, and how finely.
JUDGED, CURVES = 60, FaithfulnessOptions(shares=(0.1, 0.25, 0.4, 0.55, 0.7, 0.85), weights=False)


def test_ridge_regression_equals_the_dense_solution() -> None:
    """(D'D + penalty)^-1 D'r around the prior's best multiple, in NumPy; a prior that points away is left."""
    draw = np.random.default_rng(0)
    signs = draw.choice([-1.0, 1.0], (6, 10))
    prior, differences = draw.normal(size=(2, 3, 10)), draw.normal(size=(2, 3, 6))
    found = around(*(torch.from_numpy(one) for one in (prior, signs, differences)))
    for image in range(2):
        for place in range(3):
            expected, wanted = signs @ prior[image, place], differences[image, place]
            start = max(0.0, float(expected @ wanted / (expected @ expected))) * prior[image, place]
            inner = signs.T @ signs + PENALTY * 6 * np.eye(10)
            value = start + np.linalg.solve(inner, signs.T @ (wanted - signs @ start))
            np.testing.assert_allclose(found[image, place].numpy(), value, atol=1e-9)


def test_log_odds_do_not_saturate() -> None:
    """log p - log (1 - p) in float64 where that can be computed; finite where p is 1 to the last digit."""
    logits = torch.tensor([[[2.0, -1.0, 0.5]]], dtype=torch.float64)
    question = Question(targets=torch.tensor([[0, 2]]))
    p = logits.softmax(2)[0, 0, [0, 2]]
    torch.testing.assert_close(log_odds(question, logits)[0, 0], p.log() - (1 - p).log())
    sure = torch.tensor([[[300.0, -1.0, -1.0]]], dtype=torch.float64)
    assert log_odds(question, sure)[0, 0, 0].item() == pytest.approx(301 - np.log(2))
    against = Question(targets=torch.tensor([[0]]), contrast=torch.tensor([[2]]))
    assert log_odds(against, logits)[0, 0, 0].item() == pytest.approx(1.5)


@pytest.mark.parametrize("patches", [2, 16, 25])
def test_two_halves_share_no_patch(patches: int) -> None:
    for first, second in split_halves(50, patches, seed=3).tolist():
        assert len({*first, *second}) == 2 * (patches // 2)


def test_values_are_what_the_halves_say() -> None:
    """One pair of halves, computed by hand on the model: their difference is shared out by the formula."""
    model, image = make().eval(), pictures(1)
    found = explain(model, image, target=[1, 3], method="surrogate", samples=2, seed=5)
    prior = explain(model, image, target=[1, 3], method="presence").tokens.flatten(2)[0].double()
    halves = split_halves(1, 24, seed=5)
    logits = partial_logits(model, image, halves, (4, 6)).double()
    odds = log_odds(Question(targets=torch.tensor([[1, 3]])), logits)[0]
    signs = (
        torch.zeros(24, dtype=torch.float64).scatter_(0, halves[0, 0], 1.0).scatter_(0, halves[0, 1], -1.0)
    )
    for place in range(2):
        wanted = odds[0, place] - odds[1, place]
        expected = signs @ prior[place]
        start = (wanted / expected).clamp(min=0.0) * prior[place]
        value = start + signs * (wanted - signs @ start) / (24 + PENALTY)
        torch.testing.assert_close(found.tokens[0, place].flatten().double(), value, rtol=1e-4, atol=1e-6)


def test_patches_that_cannot_be_taken_one_by_one_are_refused() -> None:
    model, images = make_foreign("vit")
    assert explain(model, images, method="surrogate", samples=4).tokens.abs().sum() > 0
    fine = create_model(
        "vit_nano", num_classes=2, image_size=66, attention="axial", width=16, depth=2, heads=1, seed=0
    )
    with pytest.raises(UsageError, match="too many"):
        explain(fine, torch.rand(1, 1, 66, 66), method="surrogate")


@functools.cache
def saturated(pool: str) -> tuple[nn.Module, Tensor]:
    """A small network trained until it is sure of its 400 digits, and digits that it has not seen."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[:, None] / 16).float() * 2 - 1
    labels = torch.from_numpy(digits.target)
    model = create_model(
        "vit_nano", num_classes=10, seed=0, width=32, depth=2, heads=4, pool=pool, patch_size=2
    ).train()
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / 400))
        rows = torch.randint(400, (50,), generator=draw)
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        assert model.eval()(images[:400]).softmax(1).amax(1).mean() > 0.99
    return model, images[1000 : 1000 + JUDGED]


def gap(model: nn.Module, images: Tensor, method: str) -> float:
    """Insertion minus deletion, the mean over images."""
    found = explain(model, images, method=method)
    figures = measure_faithfulness(model, images, found, options=CURVES)
    return float((figures.insertion - figures.deletion).mean())


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_default_map_of_a_saturated_network_is_the_most_faithful(pool: str) -> None:
    """Ahead of every map that needs no further pass, by 0.05 and more."""
    model, images = saturated(pool)
    default = gap(model, images, "auto")
    for method in ("presence", "rollout", "relevance", "gradient_rollout"):
        assert default >= gap(model, images, method) + 0.05, method
    assert default >= 0.4
