"""Task: the joint between data, model, training, evaluation, report and runtime.

A task says how targets are read, what is built on a backbone, what the loss is, how outputs are scored, and
what a person and a program get of them. Everything else (the loop, checkpoints, loaders, the server) is the
same for all.

Odd: importing a task's description imports no torch, since the runtime decodes results on boards without it;
the methods that need torch import it themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tesela.data.batch import Batch
    from tesela.data.source import Source
    from tesela.data.targets import Targets
    from tesela.imaging.spec import ImageSpec
    from tesela.models.backbone import Backbone
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model
    from tesela.page.section import Section
    from tesela.tasks.material import Material
    from tesela.tasks.objective import Objective
    from tesela.tasks.result import Result

Rows = Mapping[str, NDArray[Any]]


class Scorer(Protocol):
    """Scores of a model over a split, in constant memory; batches may come in any order and from any rank."""

    def update(self, batch: Batch, outputs: Any) -> None:
        """Count a batch in.

        Args:
            batch: of images.
            outputs: the tensor that the model gave for it; where ``infer`` looked at the images, a list of
                one for each.
        """

    def merge(self, other: Any) -> None:
        """Count in what another scorer of the same kind has seen."""

    def validation(self) -> dict[str, float]:
        """The loss, the task's ``score`` and what else is shown after each epoch."""

    def picture(self) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) of some of the images, the same ones each time; None where none is drawn."""

    def result(self) -> dict[str, Any]:
        """All scores as plain values for JSON; at least ``images`` and the task's ``score``."""


class ArrayScorer(Protocol):
    """Scores of a program over a split, counted from arrays, without torch."""

    def update(self, outputs: NDArray[np.floating[Any]], truth: Sequence[NDArray[Any]]) -> None:
        """Count a batch in.

        Args:
            outputs: (B, ...), what the program gave.
            truth: of each image, as the task's targets read it; spatial ones (H, W) at the image's own size.
        """

    def result(self) -> dict[str, Any]:
        """As of ``Scorer``."""


class Task(ABC):
    """One thing that can be learned.

    Attributes:
        name: such as ``classify``; the word of ``--task`` and of the server's address.
        score: the scored value that selects a model; higher is better.
        headline: the scored values that a run's result states, in order; ``score`` is among them.
        noun: what a trained model is, in a model card.
        pipeline_tag: the same in the words of model hubs.
        curves: validated values between 0 and 1 that the report draws, each with its title.
        card_scores: scored values that a model card lists, each with its name for people.
        score_options: keyword arguments that ``scorer`` takes.
        decode_options: keyword arguments that ``decode`` takes.
        infer_options: keyword arguments of ``infer``: other ways to look at an image than once, as a whole.
        has_decoder: whether ``build`` and ``adapt`` take a decoder's settings.
        lists_mistakes: whether an image has one label, which ``mistakes`` can hold against the model's.
        calibrates: whether outputs are logits of one label per image, whose scale training may calibrate.
        whole_images: whether the model must see all of an image, so that none is cropped.
        needs_labels: whether images without labels or masks are of no use; where not, any folder of images
            is data, and nothing pre-trained is taken unless it is asked for.
        automatic_families: families that ``--model auto`` chooses among; all if None.
        explanation: method of the heat maps in the report.
        automatic_model: what ``--model auto`` takes for photographs; a ViT-S/16 if None.
    """

    name: ClassVar[str]
    score: ClassVar[str]
    headline: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]
    pipeline_tag: ClassVar[str]
    curves: ClassVar[Mapping[str, str]]
    card_scores: ClassVar[Mapping[str, str]]
    score_options: ClassVar[frozenset[str]] = frozenset()
    decode_options: ClassVar[frozenset[str]] = frozenset()
    infer_options: ClassVar[frozenset[str]] = frozenset()
    has_decoder: ClassVar[bool] = False
    lists_mistakes: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False
    whole_images: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    automatic_families: ClassVar[frozenset[str] | None] = None
    explanation: ClassVar[str] = "auto"
    automatic_model: ClassVar[str | None] = None

    @abstractmethod
    def suits(self, source: Source) -> bool:
        """Whether a source has what this task learns; decides ``--task auto``."""

    @abstractmethod
    def targets(self, source: Source) -> Targets:
        """How targets are read, warped and mixed with their images, and stratified."""

    @abstractmethod
    def objective(self, config: Any, targets: Targets) -> Objective:
        """The loss.

        Args:
            config: the settings, of the class that the task is registered with.
            targets: as ``targets`` gave them, after they have checked the source.
        """

    def preferred_network(self, settings: Any) -> Mapping[str, tuple[Any, Any]]:
        """Values of a new network's fields that do not suit the objective, each with a better one.

        Args:
            settings: of the objective.
        """
        del settings
        return {}

    @abstractmethod
    def scorer(self, labels: Sequence[str]) -> Scorer:
        """A new scorer; subclasses may take the keyword arguments in ``score_options``."""

    def array_scorer(self, info: BundleInfo, **options: Any) -> ArrayScorer | None:
        """A scorer that needs no torch, for the bundle of a program; None where the task has none.

        Args:
            info: of the bundle.
            **options: those of ``scorer``.
        """
        del info, options
        return None

    def validation_scorer(self, targets: Targets, places: Sequence[int]) -> Scorer:
        """A scorer for a validation while training.

        Args:
            targets: whose labels are scored.
            places: numbers of the images that can be drawn.
        """
        del places
        return self.scorer(targets.labels)

    def scorer_facts(self, model: Any, info: BundleInfo) -> dict[str, Any]:
        """Further keyword arguments of ``scorer`` when a trained model is evaluated."""
        del model, info
        return {}

    @abstractmethod
    def decode(
        self,
        outputs: NDArray[np.floating[Any]],
        info: BundleInfo,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        **options: Any,
    ) -> Sequence[Result]:
        """Results of a model's outputs (B, ...), with NumPy alone; one per image.

        Args:
            outputs: of the model.
            info: of its bundle.
            sizes: (height, width) of each image as it was read; None where they are the model's own.
            **options: of ``decode_options``.
        """

    def infer(
        self,
        compute: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        image: NDArray[np.uint8],
        spec: ImageSpec,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Outputs of one image at its own size, looked at in another way; for tasks with ``infer_options``.

        Args:
            compute: outputs of normalised views (B, C, h, w).
            image: (H, W, C).
            spec: the model's view.
            **options: of ``infer_options``.

        Raises:
            UsageError: the task has none.
        """
        del compute, image, spec
        raise UsageError(
            f"the task {self.name} looks at an image once, as a whole",
            hint="leave out " + (", ".join(sorted(options)) or "the option"),
        )

    def probabilities(self, outputs: NDArray[np.floating[Any]]) -> NDArray[np.float64] | None:
        """(B, K) probability of each label, from outputs (B, ...).

        None where labels have none for a whole image.
        """
        del outputs
        return None

    @abstractmethod
    def unreadable(self) -> Result:
        """An empty result, for an image that could not be read."""

    def build(
        self, backbone: Backbone[Any], labels: Sequence[str], *, decoder: Mapping[str, Any] | None = None
    ) -> Model:
        """A new model: by default a classifier with one logit for each label.

        Args:
            backbone: of any family; on the meta device, as the model is to be.
            labels: names of what is predicted.
            decoder: its settings, where the task ``has_decoder``.
        """
        del decoder
        from tesela.models.classifier import Classifier

        return Classifier(backbone, num_classes=len(labels))

    def adapt(
        self,
        model: Model,
        labels: Sequence[str],
        known: Sequence[str],
        *,
        seed: int,
        decoder: Mapping[str, Any] | None = None,
    ) -> Model:
        """A trained model, fitted to other labels; changed in place where it is of the task's kind.

        Args:
            model: as loaded.
            labels: of the data.
            known: of the model; what its head knows of classes of the same name stays.
            seed: of what is new in the head.
            decoder: its settings, where the task ``has_decoder`` and a new one is wanted.
        """
        del decoder
        import torch

        with torch.device("meta"):
            kind = self.build(model.backbone, labels).kind
        if model.kind != kind:
            own = self.build(model.backbone, labels)
            own.initialise_head(torch.Generator().manual_seed(seed))
            return own
        places = known_places(labels, known)
        if list(labels) == list(known):
            return model
        if any(place is not None for place in places):
            model.take_classes(places, torch.Generator().manual_seed(seed))
        else:
            model.reset_head(len(labels))
        return model

    def rows(self, batch: Batch, outputs: Any) -> Rows:
        """Arrays (B, ...) that are kept of every evaluated image, by name; they go to disk, not to memory."""
        del batch, outputs
        return {}

    def mistakes(self, rows: Rows, labels: Sequence[str]) -> Iterable[tuple[int, dict[str, Any]]]:
        """Places of images whose label the model contradicts, the surest first, with cells for a table.

        Args:
            rows: what ``rows`` gave, of all images.
            labels: of the model.
        """
        del rows, labels
        return ()

    def pictures(self, rows: Rows, sample: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Places of images that the report shows as thumbnails beside the sample, by name.

        Args:
            rows: what ``rows`` gave, of all images.
            sample: places of images drawn at random.
        """
        del rows, sample
        return {}

    def shown(self, rows: Rows, sample: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
        """Places, out of the sample, of images that the report shows with explanations."""
        del rows
        return sample[:most]

    def lead(self, scores: Mapping[str, Any]) -> str:
        """One sentence on what was reached, below the report's title."""
        return f"{self.score.replace('_', ' ')} {scores[self.score]:.4f} on the {scores['split']} split."

    def tiles(self, scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
        """The numbers that matter, for the head of the report: name, value and note."""
        for name in self.headline:
            yield name.replace("_", " ").capitalize(), f"{scores[name]:.4f}", ""
        yield "Parameters", f"{scores['parameters']:,}", f"{len(scores['labels'])} labels"

    def sections(self, material: Material) -> list[Section]:
        """The task's part of the report."""
        del material
        return []

    def tables(self, scores: Mapping[str, Any], **options: Any) -> list[RenderableType]:
        """Scores for a terminal; by default each plain number on a line."""
        from rich.text import Text

        del options
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        return [Text(f"{name:20} {value:.4f}") for name, value in numbers.items()]

    def summary(self, scores: Mapping[str, Any], split: str) -> str:
        """One line on what a model reached; empty where it was not scored."""
        value = scores.get(self.score)
        return f"{self.score.replace('_', ' ')} {value:.4f} on {split}" if value is not None else ""


def known_places(labels: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """For each label its place among those that a model knows; None for a new one."""
    places = {label: place for place, label in enumerate(known)}
    return [places.get(label) for label in labels]


def head_text(labels: Sequence[str], known: Sequence[str], *, kept: bool) -> str:
    """What becomes of a trained head, for the plan.

    Args:
        labels: of the data.
        known: of the model.
        kept: whether the head is of the task's kind and stays where it can.
    """
    new, gone = (
        [one for one in ones if one not in others] for ones, others in ((labels, known), (known, labels))
    )
    if not kept or len(new) == len(labels):
        return "new" if not kept else "new: the model knows none of the data's classes by name"
    if not new and not gone:
        return "kept" if list(labels) == list(known) else "kept, in the order of the data's classes"
    text = f"kept for {len(labels) - len(new)} of the model's {len(known)} classes"
    return (
        text
        + (f"; new: {_some_names(new)}" if new else "")
        + (f"; left out: {_some_names(gone)}" if gone else "")
    )


def _some_names(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
