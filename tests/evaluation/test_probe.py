"""Linear probes against scikit-learn, and the representation that they read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tesela.evaluation.probe import linear_probe
from tesela.models.embedder import representation
from tesela.models.factory import create_model, create_segmenter
from tesela.models.model import Model


@pytest.mark.parametrize(("count", "width"), [(12, 30), (300, 8)])
@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_probe_equals_scikit_learn(count: int, width: int, l2: float) -> None:
    """Reference: LogisticRegression at a tight tolerance, whose C is the inverse."""
    random = np.random.default_rng(0)
    targets = np.arange(count) % 4
    features = random.normal(size=(4, width))[targets] + random.normal(size=(count, width))
    weights, bias = linear_probe(features, targets, classes=4, l2=l2)
    reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10000).fit(features, targets)
    np.testing.assert_allclose(weights.T, reference.coef_, atol=2e-5)
    centred, expected = bias - bias.mean(), reference.intercept_ - reference.intercept_.mean()
    np.testing.assert_allclose(centred, expected, atol=2e-5)


def test_a_probe_can_be_fitted_in_inference_mode() -> None:
    features, targets = np.eye(4), np.arange(4)
    with torch.inference_mode():
        weights, bias = linear_probe(features, targets, classes=4)
    assert ((features @ weights + bias).argmax(1) == targets).all()


@pytest.mark.parametrize(
    "model",
    [
        create_model("vit_nano", num_classes=3, image_size=8, channels=1),
        create_model("deit_ti16", num_classes=3, image_size=32),
        create_model("cct_7_3x2_32", num_classes=3),
    ],
    ids=lambda model: type(model.backbone).__name__,
)
def test_the_representation_of_a_classifier_is_what_its_head_reads(model: Model) -> None:
    """Reference: the head applied to it gives the logits."""
    images = torch.randn(2, model.config.channels, *model.config.image_size)
    with torch.no_grad():
        model.initialise(torch.Generator().manual_seed(0))
        assert torch.allclose(model.head(representation(model, images)), model(images), atol=1e-6)


def test_the_representation_of_a_segmenter_is_of_its_tokens() -> None:
    """Reference: the class token, where the backbone has one."""
    model = create_segmenter("vit_nano", num_classes=3, image_size=8, channels=1)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        tokens = model.features(images).tokens
        assert torch.equal(representation(model, images), tokens[:, 0])
