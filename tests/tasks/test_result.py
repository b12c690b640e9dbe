"""Softmax and ranking against SciPy and a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax

from tesela.metrics.probability import softmax
from tesela.tasks.classification.result import Prediction
from tesela.tasks.result import Failure
from tesela.tasks.score import ranked


def test_softmax_equals_scipy_also_for_large_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 200, (50, 7)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits.astype(np.float64), axis=1), rtol=1e-12)
    assert softmax(np.array([[1e38, -1e38]], np.float32)).tolist() == [[1.0, 0.0]]


def test_equal_probabilities_are_ranked_by_index() -> None:
    found = ranked(np.array([0.2, 0.3, 0.3, 0.2]), ["a", "b", "c", "d"], top=3)
    assert [(score.label, score.index) for score in found] == [("b", 1), ("c", 2), ("a", 0)]
    assert len(ranked(np.array([0.4, 0.6]), ["a", "b"], top=5)) == 2


@pytest.mark.parametrize("failed", [False, True])
def test_mapping_has_the_same_keys_for_both_outcomes(failed: bool) -> None:
    scores = ranked(np.array([0.25, 0.75]), ["a", "b"], top=2)
    prediction = (
        Prediction(source="x.png", failure=Failure(code="empty", message="m", hint="h"))
        if failed
        else Prediction(source="x.png", scores=scores)
    )
    mapping = prediction.to_mapping()
    assert list(mapping) == ["image", "label", "index", "probability", "top", "error"]
    assert (mapping["label"], mapping["error"] is None) == ((None, False) if failed else ("b", True))
