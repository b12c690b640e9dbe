"""The .npz for the paper's code: names, shapes and refusals; values are compared in tests/parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.bundles import LABELS, SPEC, digits_run

from tesela.checkpoints.jax.write import export_jax
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model


def test_names_and_shapes(tmp_path: Path) -> None:
    model = create_model(
        "vit_nano", num_classes=10, seed=0, activation="gelu_tanh", head="mlp", head_width=24, depth=1
    ).eval()
    write_bundle(tmp_path / "bundle", model, describe(model, name="mine", labels=LABELS, image=SPEC))
    report = export_jax(tmp_path / "bundle", tmp_path / "jax")
    arrays = {name: array.shape for name, array in np.load(tmp_path / "jax/model.npz").items()}
    block = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0"
    assert report.tensors == len(arrays) == 26
    assert arrays[f"{block}/query/kernel"] == (64, 4, 16) and arrays[f"{block}/out/kernel"] == (4, 16, 64)
    assert arrays["embedding/kernel"] == (2, 2, 1, 64) and arrays["cls"] == (1, 1, 64)
    assert arrays["pre_logits/kernel"] == (64, 24) and arrays["head/kernel"] == (24, 10)


def test_what_has_no_place_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="activation=gelu"):
        export_jax(digits_run(), tmp_path / "jax")
    model = create_model("r11_vit_mini4", num_classes=2, seed=0, depth=1, activation="gelu_tanh").eval()
    write_bundle(tmp_path / "bundle", model, describe(model, name="mini", labels=["a", "b"], image=SPEC))
    with pytest.raises(WeightsError, match="root=small"):
        export_jax(tmp_path / "bundle", tmp_path / "jax")
    assert not (tmp_path / "jax").exists()
