"""Reading the JAX code's names where a file is not what it should be; values are in tests/parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tesela.core.errors import WeightsError
from tesela.weights.jax import vit_fields, vit_tensors


@pytest.fixture
def arrays(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden/jax/vit_representation.npz"))


def test_both_numberings_of_the_blocks(arrays: dict[str, np.ndarray]) -> None:
    """Published files count the parts of a block through: LayerNorm_0, attention_1, LayerNorm_2, MlpBlock_3."""
    changes = {"Attention_0": "Attention_1", "/LayerNorm_1": "/LayerNorm_2", "MlpBlock_0": "MlpBlock_3"}

    def published(name: str) -> str:
        for old, new in changes.items():
            name = name.replace(old, new)
        return name

    ours, same = vit_tensors(arrays), vit_tensors({published(name): array for name, array in arrays.items()})
    assert ours.keys() == same.keys() and all((ours[name] == same[name]).all() for name in ours)


def test_missing_and_unknown_arrays(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(WeightsError, match="not known: optimizer"):
        vit_tensors(arrays | {"optimizer": np.zeros(2)})
    with pytest.raises(WeightsError, match=r"lacks Transformer/encoderblock_1/.*value/bias"):
        name = "Transformer/encoderblock_1/MultiHeadDotProductAttention_0/value/bias"
        vit_tensors({key: array for key, array in arrays.items() if key != name})
    with pytest.raises(WeightsError, match="no plain ViT"):
        vit_fields({name: array for name, array in arrays.items() if name != "cls"})
