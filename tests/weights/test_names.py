"""The dictionary of names: fused tensors split and joined, nothing dropped in silence."""

from __future__ import annotations

import pytest
import torch

from tesela.core.errors import WeightsError
from tesela.weights.names import Rule, layer, to_foreign, to_own

RULES = (Rule(own="token", foreign=("cls",)), *layer("blocks.{i}.qkv", "l.{i}.q", "l.{i}.k", "l.{i}.v"))
FOREIGN = {"cls": torch.rand(2)} | {
    f"l.{i}.{part}.{kind}": torch.rand(2, 3) for i in (0, 11) for part in "qkv" for kind in ("weight", "bias")
}


def test_there_and_back() -> None:
    own = to_own(FOREIGN, RULES, source="the file")
    assert sorted(own) == ["blocks.0.qkv.bias", "blocks.0.qkv.weight", "blocks.11.qkv.bias", "blocks.11.qkv.weight", "token"]
    assert torch.equal(own["blocks.11.qkv.weight"][2:4], FOREIGN["l.11.k.weight"])
    back = to_foreign(own, RULES, target="the program")
    assert back.keys() == FOREIGN.keys() and all(torch.equal(back[name], FOREIGN[name]) for name in back)


def test_unknown_and_missing_names_are_told() -> None:
    with pytest.raises(WeightsError, match=r"not known: l\.x\.q\.weight, lora"):
        to_own(FOREIGN | {"lora": torch.zeros(1), "l.x.q.weight": torch.zeros(1)}, RULES, source="the file")
    with pytest.raises(WeightsError, match=r"the file lacks l\.11\.k\.bias"):
        to_own({name: tensor for name, tensor in FOREIGN.items() if name != "l.11.k.bias"}, RULES, source="the file")
    with pytest.raises(WeightsError, match="no place for registers"):
        to_foreign({"registers": torch.zeros(1)}, RULES, target="the program")
