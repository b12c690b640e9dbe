"""Options that cannot act are named, those that act are not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.digit_runs import tiny

from tesela.recipes import find_recipe, known
from tesela.training.config import layered
from tesela.training.planning.inert import NEEDS, inert_options
from tesela.training.run import train


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lora.rank": 4}, "--lora.rank has no effect without --tune lora"),
        ({"tune_cache": "disk"}, "--tune-cache has no effect without --tune head"),
        ({"interpolate_positions": False}, "without --from SOURCE"),
        ({"ema.every": 2}, "without --ema.decay"),
        ({"schedule.step_factor": 0.5}, "--schedule.step-factor has no effect without --schedule.name step"),
        ({"optim.momentum": 0.5}, "--optim.momentum has no effect without --optim.name sgd or muon"),
        ({"augment.magnitude": 5}, "without --augment.randaugment"),
        ({"augment.mix_probability": 0.5}, "without --augment.mixup or --augment.cutmix"),
        ({"focal_gamma": 1.0}, "--focal-gamma has no effect without --focal"),
    ],
)
def test_an_option_that_cannot_act_is_named(options: dict[str, Any], said: str) -> None:
    lines = inert_options(layered(options))
    assert len(lines) == 1 and said in lines[0]


def test_options_that_act_are_not() -> None:
    acting = {"lora.rank": 4, "tune": "lora", "from": "x", "schedule.name": "step", "schedule.step_epochs": 3}
    assert inert_options(layered(acting)) == []
    assert inert_options(layered({})) == []


@pytest.mark.parametrize("name", known())
def test_recipes_set_nothing_that_cannot_act(name: str) -> None:
    found = layered(find_recipe(name), {"from": "x"} if name in ("finetune", "head_only", "lora") else {})
    assert inert_options(found) == []


def test_every_rule_names_fields_that_exist() -> None:
    from tesela.core.config import leaves
    from tesela.training.config import TrainConfig, objective_fields

    fields = {leaf.name for leaf in leaves(TrainConfig)} | set(objective_fields())
    for need in NEEDS:
        for name in need.names:
            assert any(field == name or field.startswith(name) for field in fields), name


def test_the_plan_says_so(tmp_path: Path) -> None:
    text = io.StringIO()
    options: dict[str, Any] = {"accumulate": 50, "lora": {"rank": 2}, "patience": 3, "epochs": 1}
    options["data"] = {"val_fraction": 0.0}
    train(tiny(tmp_path / "run", **options), console=Console(file=text, width=200))
    shown = text.getvalue()
    assert "--lora.rank has no effect" in shown and "no effect   --patience" in shown
    assert "--accumulate 50: an epoch has 13 batches" in shown
