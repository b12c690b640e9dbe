"""Answers of the kinds of studies on grids whose scores are known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.test_evaluate import write_run
from tests.studies.trials import FACTS, kind_of, trials

import tesela as ts
from tesela.recipes import find_recipe
from tesela.studies.cell import Answer, Cell, Trial
from tesela.studies.claims import masks
from tesela.studies.claims.claim import Claim
from tesela.studies.claims.images import image_cells, image_claims, reach
from tesela.studies.config import StudyConfig
from tesela.studies.settings import PRETRAINING, TUNING
from tesela.training.config import layered


def answered(config: StudyConfig, found: list[Trial]) -> Answer:
    return kind_of(config).answer(config, FACTS, found)


def text_of(answer: Answer) -> str:
    return "".join(f"{section.title} {section.note} {section.body}" for section in answer.sections)


def test_data_size_forecasts_what_more_labels_bring() -> None:
    """Reference: the law that the scores were made of."""

    def score(cell: Cell) -> float:
        wobble = 0.002 * ((cell.seed * 7 + int(cell.x)) % 5 - 2)
        return float(1 - (0.05 + 1.5 * cell.x**-0.35) + wobble)

    config = StudyConfig(
        kind="data-size", data="x", models=("vit", "cnn"), labels=(30, 100, 300, 1000), minutes=(1.0,)
    )
    found = answered(config, trials(config, score))
    for way in ("vit", "cnn"):
        outlook = found.numbers["outlook"][way]
        double = outlook["forecasts"][0]
        assert double["x"] == 2000
        assert double["low"] <= 1 - (0.05 + 1.5 * 2000**-0.35) <= double["high"]
        assert outlook["check"]["x"] == 1000 and outlook["check"]["inside"]
        assert outlook["check"]["measured"] == pytest.approx(1 - (0.05 + 1.5 * 1000**-0.35), abs=0.004)
    assert "polygon" in text_of(found) and "inside" in text_of(found)


def test_two_sizes_give_means_without_a_forecast() -> None:
    config = StudyConfig(kind="data-size", data="x", models=("vit",), labels=(10, 100), minutes=(1.0,))
    found = answered(config, trials(config, lambda cell: 0.2 * np.log10(cell.x)))
    outlook = found.numbers["outlook"]["vit"]
    assert outlook["law"] is None and "6 values at 2 sizes" in outlook["reason"]
    assert "6 values at 2 sizes" in text_of(found)


def test_compute_counts_operations_and_looks_at_larger_models() -> None:
    widths = {"vit:width=64": 1e6, "vit:width=128": 4e6, "vit": 16e6, "vit:width=384": 36e6}

    def score(cell: Cell) -> dict[str, Any]:
        size = widths[cell.way]
        value = 1 - (0.1 + 20 * size**-0.3) * (1 + 0.3 / cell.x) + 0.001 * cell.seed
        return {"score": value, "parameters": int(size), "flops": int(100 * size)}

    config = StudyConfig(kind="compute", data="x", models=tuple(widths), epochs=(1, 2, 4), seeds=2)
    found = trials(config, score)
    numbers = answered(config, found).numbers
    assert set(numbers["longer"]) == set(widths)
    (name,) = numbers["larger"]
    assert name == "vit_lite7_p4, 4 epochs"
    assert numbers["larger"][name]["forecasts"][0]["x"] == 72e6
    assert numbers["larger"][name]["forecasts"][0]["accuracy"] > max(one.score for one in found)
    widest = next(one for one in numbers["longer"]["vit"]["forecasts"])
    assert widest["x"] == 2 * 3 * 100 * 16e6 * 4 * 50_000  # three forward passes for each image seen


def test_positions_are_compared_with_none() -> None:
    scores = {
        "none": 0.4,
        "learned": 0.5,
        "learned2d": 0.5,
        "sincos2d": 0.52,
        "relative": 0.49,
        "rotary": 0.51,
    }
    config = StudyConfig(kind="positions", data="x")
    found = trials(config, lambda cell: scores[cell.way.partition("-")[0]] + 0.002 * cell.seed)
    assert len(found) == 3 * 11
    answer = answered(config, found)
    assert answer.numbers["gains"]["rotary-input"]["mean"] == pytest.approx(0.11)
    assert answer.numbers["gains"]["learned-shared"]["mean"] == pytest.approx(0.10)
    assert "none-input" not in answer.numbers["gains"]
    assert "52.2 % ± 0.2" in text_of(answer)


def test_few_labels_takes_differences_in_equal_time() -> None:
    config = StudyConfig(kind="few-labels", data="x", minutes=(8.0,), pretrain_share=0.25)
    cells = kind_of(config).cells(config, FACTS)
    spent = {cell.way: cell.settings["minutes"] for cell in cells}
    assert spent["pretraining"] == 2 and spent["pre-trained"] == 6
    assert spent["scratch"] == spent["CNN"] == 8
    shares = {"pre-trained": 0.5, "scratch": 0.4, "CNN": 0.5, "pretraining": 0.3}
    wobble = {"CNN": (0.02, -0.02, 0.0)}
    found = trials(
        config,
        lambda cell: shares[cell.way] + 0.01 * cell.seed + wobble.get(cell.way, (0, 0, 0.001))[cell.seed],
    )
    answer = answered(config, found)
    gains = {(row["labels"], row["above"]): row for row in answer.numbers["gains"]}
    assert set(gains) == {(n, way) for n in (10, 100, 1000) for way in ("scratch", "CNN")}
    assert gains[100, "scratch"]["mean"] == pytest.approx(0.1)
    assert gains[100, "scratch"]["low"] > 0.09
    assert gains[100, "CNN"]["low"] < 0 < gains[100, "CNN"]["high"]
    assert "better" in text_of(answer) and "undecided" in text_of(answer)
    assert "takes 25 % of its own" in answer.lead and "+10.0 points" in text_of(answer)
    row = next(row for row in answer.numbers["means"] if (row["way"], row["x"]) == ("CNN", 10))
    assert row["scores"] == pytest.approx({"0": 0.52, "1": 0.49, "2": 0.52})
    assert "pretraining" not in {row["way"] for row in answer.numbers["means"]}


def verdicts(claims: list[Claim]) -> dict[str, str]:
    return {claim.text: claim.verdict for claim in claims}


def test_claims_hold_or_not_by_their_intervals() -> None:
    config = StudyConfig(kind="claims", data="x", minutes=(1.0,))
    scores = {"ViT": 0.70, "CNN": 0.8, "hybrid": 0.65, "ViT few": 0.4, "CNN few": 0.5, "pre-trained": 0.4}
    scores |= {"none": 0.6, "2-D": 0.704, "relative": 0.697, "each block": 0.75, "shared": 0.7}
    wobble = {"pre-trained": (0.05, -0.05, 0.0)}
    cells = image_cells(config, FACTS)
    found = trials(
        config,
        lambda cell: scores.get(cell.way, 0.0) + wobble.get(cell.way, (0.0, 0.001, 0.002))[cell.seed],
    )
    assert len(found) == len(cells) == 3 * 12
    distances = [(0.5, 0.2), (0.51, 0.2), (0.52, 0.2)]
    said = list(verdicts(image_claims(found, distances)).values())
    assert said == ["holds", "undecided", "does not hold", "holds", "holds", "does not hold", "holds"]
    assert set(verdicts(image_claims([])).values()) == {"not measured yet"}
    one_seed = [one for one in found if one.cell.seed == 0]
    assert "holds" not in verdicts(image_claims(one_seed)).values()


def test_reach_is_what_inspect_says(tmp_path: Path) -> None:
    write_run(tmp_path)
    config = StudyConfig(kind="claims", data="digits", minutes=(1.0,))
    first = next(one for one in trials(config, lambda cell: 0.5))
    far, near = reach(replace(first, folder=tmp_path))
    distance = ts.inspect(tmp_path, "digits", count=64).distance
    assert distance is not None and 0 < near < far < 2**0.5
    assert far == pytest.approx(distance.mean(1).max() / 8)
    assert near == pytest.approx(distance[0].min() / 8)


def test_claims_on_masks_read_pixels_and_artefacts() -> None:
    config = StudyConfig(kind="claims", data="x", minutes=(1.0,))
    right = {"plain ViT": 0.55, "CNN": 0.63, "smaller patches": 0.5, "MLP head": 0.56, "more epochs": 0.6}
    facts = FACTS.__class__(**{**{name: getattr(FACTS, name) for name in FACTS.__slots__}, "masks": True})
    found = trials(
        config,
        lambda cell: {
            "score": 0.1,
            "pixel_accuracy": right.get(cell.way, 0.55) + 0.001 * cell.seed * (cell.way == "MLP head"),
            "block_artefacts": (2.0 if cell.way == "plain ViT" else 1.5) + 0.01 * cell.seed,
        },
        facts,
    )
    said = list(verdicts(masks.mask_claims(found)).values())
    assert said[0] == "holds" and said[1] == "does not hold" and said[-1] == "holds"
    assert said[3] == "holds"
    page = text_of(kind_of(config).answer(config, facts, found))
    assert "CNN − plain ViT +8.0 points (+8.0 to +8.0)" in page
    assert "artefacts: ViT − more epochs +0.50 (+0.50 to +0.50)" in page  # ratios are no points
    shares, _, ratios = page.partition("Differences of other numbers")
    assert ">5 %<" in shares and ">0.4<" in ratios and "%" not in ratios.split("</svg>")[0]


def test_the_study_trains_as_the_recipes_say() -> None:
    """Settings that stand in two places, since recipes and studies do not know each other."""
    tuned = layered(find_recipe("few_labels"), {"epochs": 1})
    assert layered(TUNING, {"epochs": 1}).optim == tuned.optim
    assert layered(TUNING).schedule == tuned.schedule
    pretrained, mine = layered(find_recipe("pretrain_mae")), layered(PRETRAINING)
    assert replace(mine.optim, lr=pretrained.optim.lr) == pretrained.optim  # a larger rate for few epochs
    assert (mine.schedule, mine.task) == (pretrained.schedule, pretrained.task)
    assert mine.objective == pretrained.objective
    assert mine.augment.random_resized_crop and mine.augment.crop_scale == pretrained.augment.crop_scale


@pytest.mark.parametrize("kind", ["data-size", "compute", "positions", "few-labels", "claims"])
def test_a_page_is_titled_in_words(kind: str) -> None:
    assert re.fullmatch(r"[A-Z][a-z]+( [a-z]+)*", kind_of(StudyConfig(kind=kind, data="x")).title)
