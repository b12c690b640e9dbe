"""Attention within shifted windows where its dense layers were packed for inference."""

from __future__ import annotations

from typing import Any

import torch

from tesela.models.factory import create_model
from tesela.runtime.backends.packed import pack_dense


def test_packed_layers_give_the_same_within_bf16() -> None:
    model: Any = create_model("swin_nano_small", num_classes=3, seed=0).eval()
    model.head.linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(images)
        pack_dense(model, rows=2)
        found = model(images).float()
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
