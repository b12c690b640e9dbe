"""What ts.explain refuses, and targets by index and label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.attribution.test_explain import (
    Convolutional,
    labelled,
    make,
    pictures,
)
from torch import nn

from tesela.attribution.explain import explain
from tesela.core.errors import TeselaError, UnknownNameError, UsageError


def test_a_model_without_attention_says_what_works() -> None:
    """Attention methods are refused with the ones that work; auto takes one of those.

    It equals autograd's gradient x input.
    """
    model, images = Convolutional(), pictures(2)
    with pytest.raises(UsageError, match="needs attention") as refused:
        explain(model, images, method="rollout")
    assert "gradient_input" in refused.value.hint
    found = explain(model, images, target=1)
    assert found.method == "gradient_input"
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    assert leaf.grad is not None
    expected = (leaf.grad * images).sum(1).abs()
    torch.testing.assert_close(found.tokens[:, 0], expected / expected.sum((1, 2), keepdim=True))


@pytest.mark.parametrize(
    ("target", "indices"),
    [
        ("dog", [1]),
        (2, [2]),
        (np.int64(4), [4]),
        (["horse", 0], [2, 0]),
        ("0", [3]),
        ("7", [4]),
        ("1", [1]),
        (torch.tensor(3), [3]),
    ],
)
def test_targets_by_index_and_label(target: Any, indices: list[int]) -> None:
    """A label wins over the number that it looks like."""
    assert explain(labelled(make()), pictures(2), target=target, method="rollout").targets.tolist() == [
        indices,
        indices,
    ]


@pytest.mark.parametrize(
    ("keywords", "message", "hint"),
    [
        ({"target": "dgo"}, "unknown class 'dgo'", "dog"),
        ({"target": 5}, "no class 5", "0 to 4"),
        ({"target": -1}, "no class -1", "0 to 4"),
        ({"target": "9"}, "no class '9'", "cat"),
        ({"target": True}, "no class True", "0 to 4"),
        ({"target": []}, "empty", "predicted"),
        ({"method": "rolout"}, "unknown explanation method 'rolout'", "rollout"),
        ({"head_fusion": "sum"}, "head_fusion", "mean, max, min"),
        ({"discard": 1.0}, "discard", "up to"),
        ({"images": torch.zeros(2, 2)}, "shape", "preprocess"),
        ({"images": torch.zeros(1, 3, 16, 24, dtype=torch.uint8)}, "float32", "preprocess"),
        ({"images": "photo.jpg"}, "not str", "preprocess"),
    ],
)
def test_errors_say_what_to_do(keywords: dict[str, Any], message: str, hint: str) -> None:
    """Each wrong argument is an error of use with a hint that names the way out."""
    with pytest.raises(TeselaError, match=message) as refused:
        explain(labelled(make()), **{"images": pictures(), **keywords})
    assert refused.value.exit_code == 2
    assert hint in refused.value.hint


def test_a_label_without_labels_and_an_unfit_output() -> None:
    """A created model has no labels; a model whose output is no (B, K) is no classifier."""
    with pytest.raises(UsageError, match="no labels"):
        explain(make(), pictures(), target="cat")
    assert isinstance(UnknownNameError("class", "x", []), UsageError)
    with pytest.raises(UsageError, match="only classifiers"):
        explain(nn.Flatten(2), pictures())
