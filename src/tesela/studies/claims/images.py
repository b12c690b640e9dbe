"""Claims on classifiers: small data, pre-training, hybrids, positions, local heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tesela.checkpoints.open import open_model
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.inspection.look import look
from tesela.studies.cell import Cell, Trial
from tesela.studies.claims.claim import Claim, TrialsByWay, by_seed, difference, equal, ordered
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.families import family_candidate
from tesela.studies.interval import paired_difference
from tesela.studies.settings import TUNING, pretraining_settings, run_settings

FEW_OF_CLASS = 100
IMAGE_MINUTES = 5.0
LOOKED_AT = 64
PLAIN_VIT = "ViT"
#: Networks that differ from the ViT in its positions only.
VARIANTS = {
    "none": {"net.position": "none"},
    "2-D": {"net.position": "learned2d"},
    "relative": {"net.position": "relative"},
    "each block": {"net.position_at": "block"},
    "shared": {"net.position_at": "shared"},
}
IMAGE_NOTE = "Few labels are those of the runs called few; distances are shares of the image's side."


def image_cells(config: StudyConfig, facts: DataFacts) -> list[Cell]:
    """All runs that the claims are held against, seed by seed; each has the same time in all."""
    minutes = config.budget[1] if config.budgets else IMAGE_MINUTES
    facts.check_shares(config.labels)
    few = max(config.labels) if config.labels else min(FEW_OF_CLASS, facts.least)
    vit, hybrid, cnn = (family_candidate(word, facts.side).settings for word in ("vit", "hybrid", "cnn"))
    small = {"data.per_class": few}
    before = minutes * config.pretrain_share

    def cell(way: str, seed: int, extra: Mapping[str, Any], *, length: float = minutes, **more: Any) -> Cell:
        settings = run_settings(config, budget=("minutes", length), seed=seed, extra=extra)
        return Cell(way=way, seed=seed, settings=settings, **more)

    found = []
    for seed in config.seed_numbers:
        pretraining = Cell(
            way="pretraining",
            seed=seed,
            settings=pretraining_settings(config, minutes=before, seed=seed, extra=vit),
            shown=False,
        )
        found += [
            cell(PLAIN_VIT, seed, vit),
            cell("CNN", seed, cnn),
            cell("hybrid", seed, hybrid),
            cell("ViT few", seed, {**vit, **small}),
            cell("CNN few", seed, {**cnn, **small}),
            pretraining,
            cell("pre-trained", seed, {**TUNING, **small}, length=minutes - before, after=pretraining),
            *(cell(name, seed, {**vit, **variant}) for name, variant in VARIANTS.items()),
        ]
    return found


def image_claims(trials: Sequence[Trial], distances: Sequence[tuple[float, float]] = ()) -> list[Claim]:
    """What the finished runs say.

    Args:
        trials: of ``image_cells``.
        distances: of the plain ViT of each seed, see ``reach``.
    """
    ways: TrialsByWay = by_seed([trial for trial in trials if trial.cell.shown])

    def apart(first: str, second: str) -> dict[str, Any]:
        return {f"{first} − {second}": difference(ways, first, second)}

    return [
        ordered("on small data a ViT is below a CNN of equal cost", apart("CNN few", "ViT few")),
        ordered(
            "self-supervised pre-training is better than training from scratch",
            apart("pre-trained", "ViT few"),
        ),
        ordered("hybrids are better at small budgets", apart("hybrid", PLAIN_VIT)),
        ordered("without positions accuracy is lower", apart(PLAIN_VIT, "none")),
        equal(
            "1-D, 2-D and relative positions are about equal",
            {**apart("2-D", PLAIN_VIT), **apart("relative", PLAIN_VIT)},
        ),
        equal(
            "the three ways of adding positions are about equal",
            {**apart("each block", PLAIN_VIT), **apart("shared", PLAIN_VIT)},
        ),
        ordered(
            "some heads of the low layers look at what is near",
            {"far layer − near low head": paired_difference(*zip(*distances, strict=True))}
            if distances
            else {"far layer − near low head": None},
        ),
    ]


def reaches(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    """How far the heads of each plain ViT look."""
    return [reach(trial) for trial in trials if trial.cell.way == PLAIN_VIT]


def reach(trial: Trial) -> tuple[float, float]:
    """Mean attention distance of the layer that looks farthest, and of the nearest head of the first.

    Both as shares of the image's side, over some of the images that are scored.
    """
    model, info = open_model(trial.folder / "bundle")
    seen = look(model, str(trial.run.settings["data.source"]), LOOKED_AT, LOCAL_LIMITS).found
    assert seen.distance is not None
    side = max(info.image.height, info.image.width)
    return float(seen.distance.mean(1).max()) / side, float(seen.distance[0].min()) / side
