"""The whole network against one put together from torch.nn parts.

Conv2d, TransformerEncoder, LayerNorm, Linear.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tesela.models.factory import create_model
from tesela.models.model import file_names

PARTS = {
    "self_attn.in_proj_weight": "attention.qkv.weight",
    "self_attn.in_proj_bias": "attention.qkv.bias",
    "self_attn.out_proj.weight": "attention.out.weight",
    "self_attn.out_proj.bias": "attention.out.bias",
    "linear1.weight": "mlp.expand.weight",
    "linear1.bias": "mlp.expand.bias",
    "linear2.weight": "mlp.contract.weight",
    "linear2.bias": "mlp.contract.bias",
    **{f"norm{index}.{kind}": f"norm{index}.{kind}" for index in (1, 2) for kind in ("weight", "bias")},
}


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder(norm: str) -> None:
    ours = create_model("vit_mnist_fine_twin", seed=0, norm=norm, final_norm=norm == "pre").eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    state = file_names(ours, ours.state_dict())
    layer = nn.TransformerEncoderLayer(
        100, 4, 400, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=norm == "pre"
    )
    encoder = nn.TransformerEncoder(layer, 3, norm=None, enable_nested_tensor=False)
    encoder.load_state_dict(
        {f"layers.{i}.{name}": state[f"blocks.{i}.{own}"] for i in range(3) for name, own in PARTS.items()}
    )
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        patches = (
            nn.functional.conv2d(images, state["patches.weight"], state["patches.bias"], stride=4)
            .flatten(2)
            .mT
        )
        tokens = encoder(
            torch.cat([state["prefix.class_token"].expand(2, -1, -1), patches], 1) + state["positions.table"]
        )
        if norm == "pre":
            tokens = nn.functional.layer_norm(tokens, (100,), state["norm.weight"], state["norm.bias"], 1e-6)
        logits = tokens[:, 0] @ state["head.linear.weight"].T + state["head.linear.bias"]
        torch.testing.assert_close(ours(images), logits, rtol=1e-5, atol=1e-5)
