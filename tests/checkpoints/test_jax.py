"""Reading the JAX code's names where a file is not what it should be; values are in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.jax_reference import random_arrays

from tesela.checkpoints.image_size import native_size
from tesela.checkpoints.jax.names import check_jax, jax_fields, style_of, units_of
from tesela.checkpoints.open import open_foreign
from tesela.core.config import to_mapping
from tesela.core.errors import WeightsError
from tesela.models import catalog


def tensors(**made: Any) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in random_arrays(**made).items()}


def test_fields_of_a_hybrid() -> None:
    family, fields = jax_fields(
        tensors(grid=(3, 3), stages=(1, 2), factor=1.0, patch=(1, 1), representation=7)
    )
    assert family == "hybrid" and fields["stages"] == (1, 2) and fields["width_factor"] == 1.0
    assert (fields["image_size"], fields["heads"], fields["head_width"]) == ((24, 24), 4, 7)


def test_both_numberings_are_told_apart() -> None:
    assert style_of(tensors(grid=(2, 2), published=True)).published
    assert not style_of(tensors(grid=(2, 2))).published


def test_no_vit() -> None:
    arrays = tensors(grid=(2, 2))
    for lost in ("embedding/kernel", "query/kernel", "Dense_0/kernel"):
        with pytest.raises(WeightsError, match=lost):
            jax_fields({name: array for name, array in arrays.items() if not name.endswith(lost)})
    hybrid = tensors(grid=(2, 2), stages=(2, 1), patch=(1, 1))
    with pytest.raises(WeightsError, match="whole units or stages"):
        jax_fields({name: array for name, array in hybrid.items() if not name.startswith("block1/unit1")})


def test_units_by_both_names() -> None:
    assert units_of(tensors(grid=(2, 2), stages=(2, 1), patch=(1, 1))) == [
        (0, 0, True),
        (0, 1, False),
        (1, 0, True),
    ]


@pytest.mark.parametrize("prefix", ["opt/target/", "params/"])
def test_a_training_state_with_its_optimiser(prefix: str, tmp_path: Path) -> None:
    """The optimiser's moments have the network's names too; they are left aside, and that is said."""
    arrays: dict[str, Any] = random_arrays(grid=(3, 3))
    np.savez(tmp_path / "alone.npz", **arrays)
    state: dict[str, Any] = {prefix + name: array for name, array in arrays.items()}
    extra: dict[str, Any] = {"extra/rng": np.array([1, 2])}
    odd: dict[str, Any] = {"params_of_mine/x": np.ones(3)}
    state |= {f"opt/state/param_states/{name}/grad_ema": array for name, array in arrays.items()}
    np.savez(tmp_path / "state.npz", **state, step=np.array(7), **extra)
    alone, opened = open_foreign(tmp_path / "alone.npz"), open_foreign(tmp_path / "state.npz")
    images = torch.randn(1, 3, *alone.model.config.image_size)
    with torch.no_grad():
        assert torch.equal(alone.model(images), opened.model(images))
    (said,) = [remark for remark in opened.remarks if "left aside" in remark]
    assert f"{len(arrays) + 2} arrays" in said and "opt/state" in said and "step" in said
    assert not any("left aside" in remark for remark in alone.remarks)
    np.savez(tmp_path / "odd.npz", **state, **odd)
    with pytest.raises(WeightsError, match="params_of_mine/x"):
        open_foreign(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"activation": "gelu"}, "activation=gelu"),
        ({"activation": "gelu_tanh", "pool": "sequence"}, "pool=sequence"),
        ({"activation": "gelu_tanh", "qkv_bias": False}, "qkv_bias=False"),
        ({"activation": "gelu_tanh", "registers": 4}, "registers=4"),
    ],
)
def test_what_has_no_place_there(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        check_jax("vit", to_mapping(catalog.resolve("vit_lite7_p4", overrides=overrides)))
    with pytest.raises(WeightsError, match="'cct'"):
        check_jax("cct", {})


@pytest.mark.parametrize(
    ("positions", "step", "wanted", "size"),
    [
        (16, (8, 8), None, (32, 32)),
        (32, (4, 8), None, (32, 32)),  # a square image of oblong patches
        (16, (4, 16), None, (32, 32)),  # a square image before a square grid
        (9, (4, 8), None, (12, 24)),  # a square grid where no square image has so many
        (12, (8, 4), (16, 24), (16, 24)),
        (16, (8, 8), (16, 64), (16, 64)),  # as the user says
        (16, (8, 8), (48, 48), (32, 32)),  # what the user says is left to interpolation
    ],
)
def test_image_size_of_a_table(
    positions: int, step: tuple[int, int], wanted: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    assert native_size(positions, step, wanted) == size
