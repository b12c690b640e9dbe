"""Claims on segmenters: the gap of a plain ViT to a CNN, and artefacts at patch borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tesela.studies.cell import Cell, Trial
from tesela.studies.claims.claim import Claim, TrialsByWay, by_seed, difference, ordered
from tesela.studies.config import StudyConfig
from tesela.studies.settings import run_settings

MASK_MINUTES = 20.0
#: The plain ViT as it was trained in the article; see ``--recipe pets_article``.
ARTICLE_SETTINGS: dict[str, Any] = {
    "task": "segment",
    "model": "vit_seg_article",
    "image_size": 128,
    "normalize": "none",
    "resize": "squash",
    "batch_size": 16,
    "optim.name": "adam",
    "optim.lr": 4e-4,
    "optim.weight_decay": 0.0,
    "schedule.name": "step",
    "schedule.step_factor": 0.8,
    "schedule.step_epochs": 12,
    "schedule.warmup": 0.0,
    "clip_norm": 0.0,
    "augment.hflip": 0.5,
    "augment.color_jitter": 0.4,
}
ARTICLE_VIT = "plain ViT"
#: What the article proposes to close the gap, as settings over the plain ViT's.
PROPOSALS: dict[str, dict[str, Any]] = {
    "smaller patches": {"net.patch_size": [8, 8]},
    "MLP head": {"decoder.name": "patch", "decoder.hidden": 768},
    "more epochs": {},
    "learning rate 1e-4": {"optim.lr": 1e-4},
}
LONGER = 2
MASK_NOTE = (
    "Differences are of the share of right pixels; artefacts are 1 where borders of patches do not show."
)


def mask_cells(config: StudyConfig) -> list[Cell]:
    """All runs that the claims are held against, seed by seed; more epochs have twice the time."""
    minutes = config.budget[1] if config.budgets else MASK_MINUTES
    networks: dict[str, dict[str, Any]] = {
        ARTICLE_VIT: ARTICLE_SETTINGS,
        "CNN": {**ARTICLE_SETTINGS, "model": "unet_small"},
        **{name: {**ARTICLE_SETTINGS, **change} for name, change in PROPOSALS.items()},
    }
    return [
        Cell(
            way=way,
            seed=seed,
            settings=run_settings(
                config,
                budget=("minutes", minutes * (LONGER if way == "more epochs" else 1)),
                seed=seed,
                extra=settings,
            ),
        )
        for seed in config.seed_numbers
        for way, settings in networks.items()
    ]


def mask_claims(trials: Sequence[Trial]) -> list[Claim]:
    """What the finished runs say."""
    ways: TrialsByWay = by_seed(trials)

    def right(trial: Trial) -> float | None:
        return trial.scores.get("pixel_accuracy")

    def artefacts(trial: Trial) -> float | None:
        return trial.scores.get("block_artefacts")

    return [
        ordered(
            "a plain ViT has fewer right pixels than a CNN",
            {f"CNN − {ARTICLE_VIT}": difference(ways, "CNN", ARTICLE_VIT, right)},
        ),
        *(
            ordered(
                f"nearer to the CNN by: {name}",
                {f"{name} − {ARTICLE_VIT}": difference(ways, name, ARTICLE_VIT, right)},
            )
            for name in PROPOSALS
        ),
        ordered(
            "block artefacts shrink over the epochs",
            {"artefacts: ViT − more epochs": difference(ways, ARTICLE_VIT, "more epochs", artefacts)},
            shares=False,
        ),
    ]
