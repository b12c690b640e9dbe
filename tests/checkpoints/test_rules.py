"""The dictionary of names: fused tensors split and joined, nothing dropped in silence."""

from __future__ import annotations

import pytest
import torch

from tesela.checkpoints.rules import Rule, check_finite, check_tensors, layer, to_foreign, to_own
from tesela.core.errors import WeightsError

RULES = (Rule(own="token", foreign=("cls",)), *layer("blocks.{i}.qkv", "l.{i}.q", "l.{i}.k", "l.{i}.v"))
FOREIGN = {"cls": torch.rand(2)} | {
    f"l.{i}.{part}.{kind}": torch.rand(2, 3) for i in (0, 11) for part in "qkv" for kind in ("weight", "bias")
}


def test_there_and_back() -> None:
    own = to_own(FOREIGN, RULES, source="the file")
    assert sorted(own) == [
        "blocks.0.qkv.bias",
        "blocks.0.qkv.weight",
        "blocks.11.qkv.bias",
        "blocks.11.qkv.weight",
        "token",
    ]
    assert torch.equal(own["blocks.11.qkv.weight"][2:4], FOREIGN["l.11.k.weight"])
    back = to_foreign(own, RULES, target="the program")
    assert back.keys() == FOREIGN.keys() and all(torch.equal(back[name], FOREIGN[name]) for name in back)


def test_unknown_and_missing_names_are_told() -> None:
    with pytest.raises(WeightsError, match=r"not known: l\.x\.q\.weight \(1\), lora \(1\)"):
        to_own(FOREIGN | {"lora": torch.zeros(1), "l.x.q.weight": torch.zeros(1)}, RULES, source="the file")
    with pytest.raises(WeightsError, match=r"the file lacks l\.11\.k\.bias"):
        to_own(
            {name: tensor for name, tensor in FOREIGN.items() if name != "l.11.k.bias"},
            RULES,
            source="the file",
        )
    with pytest.raises(WeightsError, match="no place for registers"):
        to_foreign({"registers": torch.zeros(1)}, RULES, target="the program")


def test_shapes_that_do_not_go_together() -> None:
    with pytest.raises(
        WeightsError, match=r"other shapes than expected: l\.0\.k\.weight \(2x5\), l\.0\.q\.weight \(2x3\)"
    ):
        to_own(FOREIGN | {"l.0.k.weight": torch.zeros(2, 5)}, RULES, source="the file")


def test_differences_are_listed_by_name_and_shape() -> None:
    expected = {"a": torch.zeros(2, 3, device="meta"), "b": torch.zeros(4), "c": torch.zeros(())}
    check_tensors(
        {"a": torch.ones(2, 3), "b": torch.ones(4), "c": torch.ones(())}, expected, source="the file"
    )
    with pytest.raises(
        WeightsError,
        match=r"missing: b \(4\), c \(scalar\); not known: d \(1\); "
        r"of another shape: a \(3x2 instead of 2x3\)",
    ):
        check_tensors({"a": torch.ones(3, 2), "d": torch.ones(1)}, expected, source="the file")


def test_values_that_are_not_finite() -> None:
    good = {"whole": torch.ones(3), "count": torch.ones(2, dtype=torch.int64)}
    check_finite(good, source="the file")
    with pytest.raises(WeightsError, match=r"NaN or infinite: b \(2 of 4 values\)"):
        check_finite(good | {"b": torch.tensor([1.0, float("nan"), float("inf"), 0.0])}, source="the file")
