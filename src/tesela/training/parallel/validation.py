"""Validation of a model by one rank or several: each image once, scored by rank 0 in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tesela.data.batch import Batch
from tesela.hardware.distributed import sharing
from tesela.hardware.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from tesela.tasks.task import Scorer
    from tesela.training.step import TrainingStep


def score_batches(step: TrainingStep, model: nn.Module, batches: Iterable[Batch], scorer: Scorer) -> None:
    """Let the scorer of rank 0 see all batches.

    Each rank computes its part of a batch where outputs are a tensor, which rank 0 puts together; outputs of
    another form are computed by rank 0.

    Args:
        step: moves batches and holds the objective.
        model: in evaluation mode.
        batches: whole ones, the same on every rank.
        scorer: takes batches and outputs.
    """
    ranks = step.ranks
    for batch in batches:
        begin, end = ranks.span(len(batch))
        # of fewer images than ranks some have none: then each computes all of them
        shared = not ranks.alone and len(batch) >= ranks.count
        if not shared and not ranks.writes and step.whole_everywhere:
            continue
        moved = step.move(batch if ranks.writes or not shared else batch.part(begin, end))
        part = moved.part(begin, end) if shared and ranks.writes else moved
        outputs: Any = step.objective.outputs(model, part)
        if shared and isinstance(outputs, Tensor):
            outputs = ranks.gathered(outputs, len(batch))
        elif shared and ranks.writes:
            outputs = step.objective.outputs(model, moved)
        if ranks.writes:
            scorer.update(moved, outputs)


def same_scores(scores: Callable[[], dict[str, float]], ranks: Ranks) -> dict[str, float]:
    """The scores that rank 0 computes by itself, on every rank, bit for bit."""
    if ranks.alone:
        return scores()
    with sharing(ALONE):
        return dict(json.loads(ranks.first(lambda: json.dumps(scores()))))
