"""Claims of the articles on Vision Transformers, each held against measured runs.

Data with labels is for the claims on classifiers, data with masks for those on segmenters.
"""

from __future__ import annotations

from collections.abc import Sequence

from tesela.core.errors import ConfigError
from tesela.studies.cell import Answer, Cell, Trial
from tesela.studies.claims import images, masks
from tesela.studies.claims.claim import claims_sections
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.means import means, means_section


class ClaimsStudy:
    """The claims that the data can decide."""

    title = "Claims of the articles"

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """All runs that are needed.

        Raises:
            ConfigError: the length is given in epochs, or models are named.
        """
        if config.epochs or config.models:
            what = "its models are fixed" if config.models else "runs are compared in equal time"
            raise ConfigError(
                f"study claims: {what}",
                hint="leave --models out" if config.models else "give the time of each way: --minutes 5",
            )
        return masks.mask_cells(config) if facts.masks else images.image_cells(config, facts)

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """A verdict on each claim."""
        claims = (
            masks.mask_claims(trials) if facts.masks else images.image_claims(trials, images.reaches(trials))
        )
        usual = masks.MASK_MINUTES if facts.masks else images.IMAGE_MINUTES
        minutes = config.budget[1] if config.budgets else usual
        return Answer(
            lead=f"{facts.name}: {facts.images:,} training images, {minutes:g} minutes for each way, "
            f"scored on {facts.scored:,} images.",
            sections=[
                *claims_sections(claims, note=masks.MASK_NOTE if facts.masks else images.IMAGE_NOTE),
                means_section(trials, title="Scores", unit=""),
            ],
            numbers={"claims": [claim.mapping() for claim in claims], "means": means(trials)},
        )
