"""Bounds of an export: what is refused, and that the numbers are said."""

from __future__ import annotations

from typing import Any

import pytest

from tesela.core.errors import WeightsError
from tesela.exporters.contract import BOUNDS, Contract, ProgramRow, broken_bounds


def row(**values: Any) -> ProgramRow:
    """A program that keeps all bounds."""
    fields: dict[str, Any] = {
        "name": "program",
        "latency": {"1": 0.010, "8": 0.080},
        "scores": {"accuracy": 0.9, "ece": 0.02},
    }
    return ProgramRow(**{**fields, **values})


def problems(precision: str, **values: Any) -> list[str]:
    """What such a program breaks beside an fp32 one."""
    return broken_bounds(row(**values), row(), [row(name="other fp32")], BOUNDS[precision], "accuracy")


@pytest.mark.parametrize("precision", sorted(BOUNDS))
def test_the_same_program_keeps_every_bound(precision: str) -> None:
    assert problems(precision) == []


@pytest.mark.parametrize("precision", sorted(BOUNDS))
@pytest.mark.parametrize("name", ["max_abs_logits", "max_abs_probability"])
def test_no_number_is_never_kept(precision: str, name: str) -> None:
    assert problems(precision, **{name: float("nan")}) == ["it gives values that are no numbers"]


@pytest.mark.parametrize("name", ["max_abs_logits", "max_abs_probability"])
def test_fp32_has_a_bound_on_every_output(name: str) -> None:
    (problem,) = problems("fp32", **{name: 2e-3})
    assert "2.00e-03" in problem and "more than 1e-03" in problem
    assert problems("int8", **{name: 2e-3}) == []


def test_int8_that_predicts_other_classes_is_refused_with_the_share() -> None:
    (problem,) = problems("int8", agreement=0.985, max_abs_logits=0.75)
    assert "98.50%" in problem and "99.00%" in problem and "7.50e-01" in problem


def test_a_lower_score_is_refused_with_both_scores() -> None:
    (problem,) = problems("int8", scores={"accuracy": 0.88, "ece": 0.02})
    assert "0.8800" in problem and "0.9000" in problem
    assert problems("int8", scores={"accuracy": 0.92, "ece": 0.02}) == []


@pytest.mark.parametrize(("batch", "seconds"), [("1", 0.011), ("8", 0.089)])
def test_a_slower_int8_is_refused_with_both_times(batch: str, seconds: float) -> None:
    latency = {"1": 0.010, "8": 0.080} | {batch: seconds}
    (problem,) = problems("int8", latency=latency)
    assert f"{1e3 * seconds:.2f} ms for a batch of {batch}" in problem and "other fp32" in problem
    assert problems("int8-weights", latency=latency) == []


def test_what_breaks_a_bound_is_kept_by_force_alone() -> None:
    program = row(name="int8", agreement=0.5)
    contract = Contract(
        images="2 images",
        kind="real",
        count=2,
        score="accuracy",
        reference=row(),
        others=[],
        program=program,
        bounds=BOUNDS["int8"],
        problems=broken_bounds(program, row(), [], BOUNDS["int8"], "accuracy"),
    )
    contract.refuse(force=True)
    with pytest.raises(
        WeightsError, match=r"int8 program was not kept: it predicts the same class for 50.00%"
    ):
        contract.refuse(force=False)
    head, *rows = contract.table()
    assert len(rows) == 2 and all(len(cells) == len(head) for cells in rows)
    assert rows[1][:3] == ["int8", "0.0e+00", "50.00%"]
