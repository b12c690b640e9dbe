"""Logits against the original JAX code: golden values of shared/golden/jax, to 1e-5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tesela.models.factory import empty_model
from tesela.models.tensors import fit
from tesela.models.vit.config import ViTConfig
from tesela.weights.jax import vit_fields, vit_tensors


@pytest.mark.parametrize("name", ["vit_token", "vit_representation"])
@pytest.mark.parametrize("mode", ["linear", "conv"])
def test_logits(shared: Path, name: str, mode: str) -> None:
    arrays, golden = dict(np.load(shared / f"golden/jax/{name}.npz")), np.load(shared / f"golden/jax/{name}.io.npz")
    model = empty_model(ViTConfig(**vit_fields(arrays), patch_mode=mode), num_classes=10)  # type: ignore[arg-type]
    fit(model, vit_tensors(arrays), source=name)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(golden["images_nhwc"]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits.numpy(), golden["logits"], rtol=0, atol=1e-5 * float(abs(golden["logits"]).max()))
