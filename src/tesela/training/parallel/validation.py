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
    another form are computed by rank 0, and scored by all ranks where weights are shared out, for a picture
    may call the model.

    Args:
        step: moves batches and holds the objective.
        model: in evaluation mode.
        batches: whole ones, the same on every rank.
        scorer: takes batches and outputs.
    """
    ranks = step.ranks
    whole = ranks.writes or not step.whole_everywhere  # whether this rank computes what rank 0 does
    tensors = not ranks.alone
    for batch in batches:
        begin, end = ranks.span(len(batch))
        # of fewer images than ranks some have none: then each computes all of them
        shared = tensors and len(batch) >= ranks.count
        if not shared and not whole:
            continue
        moved = step.move(batch if whole or not shared else batch.part(begin, end))
        part = moved.part(begin, end) if shared and whole else moved
        outputs: Any = step.objective.outputs(model, part)
        if shared and isinstance(outputs, Tensor):
            outputs = ranks.gathered(outputs, len(batch))
        elif shared:
            tensors = False  # nor in the batches to come
            outputs = step.objective.outputs(model, moved) if whole else None
        if ranks.writes or (whole and outputs is not None and not isinstance(outputs, Tensor)):
            scorer.update(moved, outputs)


def same_scores(
    scores: Callable[[], dict[str, float]], watch: Callable[[], dict[str, float]] | None, step: TrainingStep
) -> dict[str, float]:
    """Scores that rank 0 computes by itself, on every rank, bit for bit.

    Args:
        scores: do not call the model.
        watch: gives further ones, which do; where weights are shared out, on every rank.
        step: knows the ranks.
    """
    ranks, watched = step.ranks, watch or dict
    with sharing(ALONE):
        if step.whole_everywhere:
            return _of_first(lambda: {**scores(), **watched()}, ranks)
        found = watched()
        return _of_first(lambda: {**scores(), **found}, ranks)


def _of_first(scores: Callable[[], dict[str, float]], ranks: Ranks) -> dict[str, float]:
    """The scores of rank 0."""
    return scores() if ranks.alone else dict(json.loads(ranks.first(lambda: json.dumps(scores()))))
