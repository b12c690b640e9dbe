"""Scores of embeddings: whatever the order and the ranks, with labels and without, and the alarm."""

from __future__ import annotations

import numpy as np
import torch

from tesela.data.batch import Batch
from tesela.tasks.pretraining import scorer as module
from tesela.tasks.pretraining.scorer import EmbeddingScorer, has_collapsed
from tesela.tasks.pretraining.sections import COLLAPSE
from tesela.tasks.pretraining.task import Pretraining


def batches(
    embeddings: torch.Tensor, labels: torch.Tensor, order: torch.Tensor
) -> list[tuple[Batch, torch.Tensor]]:
    return [
        (Batch(torch.zeros(len(rows), 0), labels[rows], rows), embeddings[rows]) for rows in order.split(7)
    ]


def test_scores_do_not_depend_on_order_or_ranks() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    embeddings = torch.randn(60, 8, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 8)
    whole, first, second = EmbeddingScorer(), EmbeddingScorer(), EmbeddingScorer()
    for part in batches(embeddings, labels, torch.arange(60)):
        whole.update(*part)
    for place, part in enumerate(batches(embeddings, labels, torch.randperm(60, generator=generator))):
        (first if place % 2 else second).update(*part)
    first.merge(second)
    assert first.result() == whole.result()
    assert whole.result()["probe_accuracy"] > 0.7 and whole.result()["classes"] == 3


def test_images_without_a_class_are_not_probed() -> None:
    """Half of them have none; the rank is of all."""
    embeddings, labels = torch.eye(20), torch.arange(20) % 2
    labels[10:] = -1
    scorer = EmbeddingScorer()
    for part in batches(embeddings, labels, torch.arange(20)):
        scorer.update(*part)
    found = scorer.result()
    assert found["probed"] == 10 and found["images"] == 20
    assert abs(found["embedding_rank"] - 20) < 1e-6 and not found["collapsed"]
    bare = EmbeddingScorer()
    for part in batches(embeddings, torch.full((20,), -1), torch.arange(20)):
        bare.update(*part)
    assert bare.result()["probe_accuracy"] is None and "probe_accuracy" not in bare.validation()


def test_equal_embeddings_ring_the_alarm() -> None:
    scorer = EmbeddingScorer()
    alike = torch.ones(30, 16) + 1e-3 * torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    for part in batches(alike, torch.full((30,), -1), torch.arange(30)):
        scorer.update(*part)
    found = scorer.result()
    assert found["collapsed"] and found["embedding_rank"] < 1.2
    scores = {**found, "split": "test"}
    assert COLLAPSE in str(Pretraining().tables(scores)[-1])
    assert has_collapsed(7.0, 4096, 384) and not has_collapsed(8.0, 4096, 384)
    assert not has_collapsed(1.0, 9, 384), "of nine images nothing is said"


def test_memory_is_constant() -> None:
    """The same images are kept whatever comes in which order."""
    embeddings, labels = torch.randn(9000, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(9000)
    kept = []
    for order in (torch.arange(9000), torch.arange(9000).flip(0)):
        scorer = EmbeddingScorer()
        for rows in order.split(500):
            batch = Batch(torch.zeros(len(rows), 0), labels[rows].long(), rows)
            scorer.update(batch, embeddings[rows])
        kept.append(np.sort(scorer._numbers))
    assert len(kept[0]) == module.MOST and np.array_equal(kept[0], kept[1])
