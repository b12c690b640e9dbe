"""Names of timm's VisionTransformer: the list of its tensors is written out here as timm 1.0 has it, one block deep."""

from __future__ import annotations

import pytest
import torch

from tesela.core.errors import WeightsError
from tesela.models.factory import create_model
from tesela.weights.timm import vit_tensors, vit_to_timm

OF_A_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
EXPECTED = {"cls_token", "pos_embed"} | {
    f"{name}.{kind}"
    for name in ("patch_embed.proj", "norm", "head", *(f"blocks.{block}.{part}" for block in (0, 1) for part in OF_A_BLOCK))
    for kind in ("weight", "bias")
}


def test_names_and_round_trip() -> None:
    own = create_model("vit_nano", seed=0, depth=2).state_dict()
    foreign = vit_to_timm(own)
    assert set(foreign) == EXPECTED
    assert torch.equal(foreign["blocks.1.mlp.fc1.weight"], own["blocks.1.mlp.expand.weight"])
    back = vit_tensors(foreign)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_what_is_unknown_is_named() -> None:
    foreign = {**vit_to_timm(create_model("vit_nano", seed=0).state_dict()), "fc_norm.weight": torch.ones(3)}
    with pytest.raises(WeightsError, match=r"fc_norm\.weight"):
        vit_tensors(foreign)
