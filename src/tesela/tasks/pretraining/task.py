"""Pre-training: a network learns from images alone, labelled or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.tasks.pretraining.result import Embedding
from tesela.tasks.pretraining.sections import pretraining_lead, pretraining_sections, pretraining_tiles
from tesela.tasks.pretraining.targets import ProbeTargets
from tesela.tasks.task import Rows, Scorer, Task

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from tesela.data.batch import Batch
    from tesela.data.source import Source
    from tesela.data.targets import Targets
    from tesela.models.backbone import Backbone
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model
    from tesela.page.section import Section
    from tesela.tasks.material import Material
    from tesela.tasks.objective import Objective
    from tesela.tasks.pretraining.config import PretrainConfig

#: Validation images whose pictures are drawn after each epoch.
PICTURED = 8


class Pretraining(Task):
    """Learning from images alone: masked patches, MAE or DINO."""

    name = "pretrain"
    score = "probe_accuracy"
    headline = ("probe_accuracy", "knn_accuracy", "embedding_rank")
    noun = "image embedder"
    pipeline_tag = "image-feature-extraction"
    curves = MappingProxyType(
        {"probe_accuracy": "Accuracy of a linear probe", "knn_accuracy": "Accuracy of nearest neighbours"}
    )
    card_scores = MappingProxyType(
        {
            "probe_accuracy": "accuracy of a linear probe, cross-validated",
            "knn_accuracy": "accuracy of nearest neighbours, cross-validated",
            "embedding_rank": "effective rank of the embeddings",
        }
    )
    needs_labels = False
    automatic_families = frozenset({"vit"})
    explanation = "rollout"

    def suits(self, source: Source) -> bool:
        """Never by itself: with labels a supervised task is what is wanted, and without it must be named."""
        del source
        return False

    def targets(self, source: Source) -> ProbeTargets:
        """Classes for the probes, where images have one of several."""
        return ProbeTargets(labelled=len(source.labels) > 1 and source.masks is None)

    def build(
        self, backbone: Backbone[Any], labels: Sequence[str], *, decoder: Mapping[str, Any] | None = None
    ) -> Model:
        """An embedder; decoders and teachers belong to the objective."""
        from tesela.models.embedder import Embedder

        del labels, decoder
        return Embedder(backbone)

    def objective(self, config: PretrainConfig, targets: Targets) -> Objective:
        """The method that the settings name."""
        from tesela.tasks.pretraining.dino import Dino
        from tesela.tasks.pretraining.mae import MaskedAutoencoder
        from tesela.tasks.pretraining.masked import MaskedPatches

        del targets
        if config.method == "dino":
            return Dino(config)
        return MaskedAutoencoder(config) if config.method == "mae" else MaskedPatches(config)

    def preferred_network(self, settings: PretrainConfig) -> Mapping[str, tuple[Any, Any]]:
        """The mean of the patches instead of a class token, which hidden patches teach nothing."""
        return {} if settings.method == "dino" else {"pool": ("class", "mean")}

    def scorer(self, labels: Sequence[str]) -> Scorer:
        """Probes and effective rank."""
        from tesela.tasks.pretraining.scorer import EmbeddingScorer

        del labels
        return EmbeddingScorer()

    def validation_scorer(self, targets: Targets, places: Sequence[int]) -> Scorer:
        """The same with the loss; pictures of ``PICTURED`` images, evenly spread."""
        from tesela.tasks.pretraining.scorer import EmbeddingScorer

        del targets
        chosen = np.unique(np.linspace(0, max(len(places) - 1, 0), min(PICTURED, len(places))).astype(int))
        return EmbeddingScorer(drawn=[places[int(index)] for index in chosen] if len(places) else [])

    def decode(
        self,
        outputs: NDArray[np.floating[Any]],
        info: BundleInfo,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        **options: Any,
    ) -> Sequence[Embedding]:
        """The embedding (D',) of each image."""
        del info, sizes, options
        return [Embedding(vector=tuple(row.astype(np.float64).tolist())) for row in outputs]

    def unreadable(self) -> Embedding:
        """No vector."""
        return Embedding()

    def rows(self, batch: Batch, outputs: Tensor) -> Rows:
        """Embeddings (B, D') and class numbers (B,), -1 without one."""
        return {
            "embeddings": outputs.float().cpu().numpy(),
            "targets": batch.targets.cpu().numpy().astype(np.int64),
        }

    def lead(self, scores: Mapping[str, Any]) -> str:
        """What was learned, as far as probes tell."""
        return pretraining_lead(scores)

    def tiles(self, scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
        """Probes, rank, size."""
        return pretraining_tiles(scores)

    def sections(self, material: Material) -> list[Section]:
        """Alarm, pictures over the epochs, attention maps."""
        return pretraining_sections(material)

    def summary(self, scores: Mapping[str, Any], split: str) -> str:
        """Probe and rank."""
        rank = scores.get("embedding_rank")
        parts = [super().summary(scores, split) if scores.get(self.score) is not None else ""]
        parts += [f"effective rank {rank:.1f}"] if rank is not None else []
        return ", ".join(filter(None, parts))

    def tables(self, scores: Mapping[str, Any], **options: Any) -> list[RenderableType]:
        """The scores, and an alarm where embeddings have collapsed."""
        from rich.text import Text

        from tesela.tasks.pretraining.sections import COLLAPSE

        found: list[RenderableType] = list(super().tables(scores, **options))
        return [*found, Text(COLLAPSE, style="bold red")] if scores.get("collapsed") else found
