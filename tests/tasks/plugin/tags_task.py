"""A task from outside the package: any number of tags per image, read from a manifest's column ``tags``.

Its objective has a parameter and a buffer of its own and draws random numbers, so that a resumed run shows
whether all of it is checkpointed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ConfigError, DataError
from tesela.core.registry import register
from tesela.data.source import Items, Source
from tesela.page.section import Section
from tesela.tasks.material import Material
from tesela.tasks.result import Result
from tesela.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class TagsConfig:
    """Settings of the objective."""

    forget: float = 0.1
    """Share of the tags that a step leaves out of the loss."""

    def __post_init__(self) -> None:
        if not 0 <= self.forget < 1:
            raise ConfigError(f"forget must lie in 0..1, not {self.forget}", hint="0.1 is usual")


register("head", "tagger", target="tags_model:Tagger")
register("task", "tags", target="tags_task:Tags", config=TagsConfig, summary="any number of tags per image")


class TagTargets:
    """(B, K) float32 of zeros and ones."""

    spatial = False

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    def check(self, source: Source) -> None:
        if not self.labels:
            raise DataError(f"{source.name} has no tags", hint="add a column tags")

    def strata(self, items: Items) -> NDArray[np.int64]:
        return np.zeros(len(items), np.int64)

    def read(
        self, items: Items, rows: NDArray[np.int64], spec: Any, *, boxes: Any = None
    ) -> NDArray[np.float32]:
        texts = items.columns["tags"][rows]
        return np.array([[tag in text.split(";") for tag in self.labels] for text in texts], np.float32)

    def matched(self, labels: Sequence[str]) -> TagTargets:
        if unknown := set(self.labels) - set(labels):
            raise DataError(f"the model does not know {sorted(unknown)}", hint="use its own data")
        return TagTargets(labels)

    def dry(self, count: int, spec: Any) -> NDArray[np.float32]:
        return np.zeros((count, len(self.labels)), np.float32)

    def follow(self, values: Any, movement: Any) -> Any:
        del movement
        return values

    def mix(self, values: Any, *, share: float) -> Any:
        return values * share + values.flip(0) * (1 - share)


class TagScorer:
    """Micro-averaged F1 and the mean loss."""

    def __init__(self) -> None:
        self.counts = np.zeros(4, np.int64)  # images, hits, named, true
        self.loss = 0.0

    def update(self, batch: Any, outputs: Any) -> None:
        from torch.nn import functional as F

        self.loss += float(F.binary_cross_entropy_with_logits(outputs.float(), batch.targets)) * len(batch)
        named, true = (outputs > 0).cpu().numpy(), batch.targets.cpu().numpy() > 0.5
        self.counts += np.array([len(batch), (named & true).sum(), named.sum(), true.sum()])

    def merge(self, other: TagScorer) -> None:
        self.counts += other.counts
        self.loss += other.loss

    def validation(self) -> dict[str, float]:
        images, hits, named, true = self.counts.tolist()
        return {"loss": self.loss / max(images, 1), "f1": 2 * hits / max(named + true, 1)}

    def picture(self) -> None:
        return None

    def result(self) -> dict[str, Any]:
        return {"images": int(self.counts[0]), **self.validation()}


@dataclass(frozen=True, kw_only=True)
class TagResult(Result):
    """The tags of one image."""

    schema: ClassVar[dict[str, Any]] = {"tags": ["string"], "surest": "float64"}

    tags: tuple[str, ...] = ()
    surest: float | None = None

    def answer(self) -> dict[str, Any]:
        return {"tags": list(self.tags), "surest": self.surest}

    def cells(self) -> dict[str, str]:
        return {"tags": ";".join(self.tags)}

    def text(self) -> str:
        return ", ".join(self.tags) or "no tag"


class Tags(Task):
    """Any number of tags per image, by binary cross-entropy."""

    name = "tags"
    score = "f1"
    headline = ("f1",)
    noun = "image tagger"
    pipeline_tag = "image-classification"
    curves = MappingProxyType({"f1": "F1"})
    card_scores = MappingProxyType({"f1": "F1"})

    def suits(self, source: Source) -> bool:
        return "tags" in source.splits["train"].columns and not source.labels

    def targets(self, source: Source) -> TagTargets:
        texts = [text for items in source.splits.values() for text in items.columns["tags"]]
        return TagTargets(sorted({tag for text in texts for tag in text.split(";") if tag}))

    def build(self, backbone: Any, labels: Sequence[str], **options: Any) -> Any:
        from tags_model import Tagger

        return Tagger(backbone, num_classes=len(labels))

    def objective(self, config: TagsConfig, targets: Any) -> Any:
        from tags_objective import TagObjective

        return TagObjective(len(targets.labels), forget=config.forget)

    def scorer(self, labels: Sequence[str]) -> TagScorer:
        return TagScorer()

    def decode(self, outputs: NDArray[Any], info: Any, **options: Any) -> list[TagResult]:
        return [
            TagResult(
                tags=tuple(tag for tag, value in zip(info.labels, row, strict=True) if value > 0),
                surest=float(1 / (1 + np.exp(-row.max()))),
            )
            for row in outputs.astype(np.float64)
        ]

    def unreadable(self) -> TagResult:
        return TagResult()

    def sections(self, material: Material) -> list[Section]:
        return (
            [Section(title="Tags", body=f"{len(material.scores['labels'])} tags")] if material.scores else []
        )

    def summary(self, scores: Mapping[str, Any], split: str) -> str:
        return f"F1 {scores['f1']:.3f} on {split}"
