"""Few-shot accuracy of a model while it trains, on the validation images after each epoch.

Odd: it draws no random numbers of torch's, so that a training with it has the bits of one without.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tesela.core.errors import ConfigError
from tesela.data.loader import Loader
from tesela.evaluation.few_shot import check_labelled
from tesela.evaluation.readers import Passes, Reading, features_of, read_shots
from tesela.evaluation.rows import RowSpool
from tesela.evaluation.shots import draw_shots
from tesela.models.model import Model
from tesela.training.prepare import Prepared

#: Draws of the shots; the same ones after each epoch.
WATCH_DRAWS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotWatch:
    """Few-shot accuracies after each epoch.

    Attributes:
        prepared: the run.
        validation: batches of the images that are scored.
        precision: in which the model computes.
    """

    prepared: Prepared
    validation: Loader
    precision: str

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Mean accuracy over the draws by ``few_shot_1`` and the like; the model is in evaluation mode."""
        assert isinstance(model, Model)
        prepared, items = self.prepared, self.validation.items
        with RowSpool() as spool:
            readers, _ = read_shots(
                model,
                prepared.source,
                prepared.start.spec,
                prepared.config.few_shot,
                draws=WATCH_DRAWS,
                seed=0,
                reading=Reading(readers=("ridge",)),
                passes=Passes(batch_size=self.validation.batch_size, precision=self.precision),
                spool=spool,
            )
            for features, rows in features_of(model, self.validation, self.precision):
                readers.update(features, items.targets[rows])
        return {f"few_shot_{row['shots']}": row["ridge"]["mean"] for row in readers.result()}


def check_few_shot(prepared: Prepared) -> None:
    """Refuse what could not be computed after the first epoch, before the run begins.

    Raises:
        ConfigError: there are no validation images, or the features never change.
        DataError: images have no labels, or a class has fewer than the shots; it is named.
    """
    source, shots = prepared.source, prepared.config.few_shot
    if not shots:
        return
    check_labelled(source)
    if not prepared.count("val"):
        raise ConfigError(
            "few-shot accuracy while training is scored on validation images, and there are none",
            hint="cut some off with --data.val-fraction 0.1",
        )
    if prepared.frozen.place():
        raise ConfigError(
            "the body is frozen, so its few-shot accuracy stays what it is",
            hint="leave few_shot out, and ask once: tesela evaluate RUN DATA --few-shot 1,5,10",
        )
    draw_shots(source.splits["train"].targets, source.labels, shots, draws=WATCH_DRAWS, seed=0)
