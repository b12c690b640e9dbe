"""Distillation of a classifier: labels and a teacher, hard or soft, or DeiT's token.

    hard   (1 - share) CE(z, y) + share CE(z', argmax t)                       arXiv 2012.12877, equation 3
    soft   (1 - share) CE(z, y) + share T^2 KL(softmax(t / T), softmax(z' / T))    equation 2; 1503.02531

z are the student's logits and t the teacher's. z' is z but for a student with a distillation token, whose
second head learns from the teacher alone. Both are means over the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.core.errors import ConfigError, WeightsError
from tesela.core.progress import progress_bar
from tesela.data.augment.flips import views
from tesela.data.batch import Batch
from tesela.data.loader import Loader
from tesela.imaging.spec import ImageSpec
from tesela.models.classifier import Classifier
from tesela.models.deit.network import DeiTHead
from tesela.tasks.classification.objective import CrossEntropy, hard_labels
from tesela.tasks.distillation.kept import KEPT_BYTES, KeptOutputs, kept_bytes_of
from tesela.tasks.distillation.teacher import Teacher
from tesela.tasks.objective import Draw, Loss, Objective

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.tasks.classification.config import ClassificationConfig


class Distillation(Objective):
    """Cross-entropy with the labels, and what a teacher says of the same images.

    Args:
        config: kind, share and temperature.
        labels: the loss of the labels.
        teacher: knows the student's classes.
        classes: K.
    """

    def __init__(
        self, config: ClassificationConfig, labels: CrossEntropy, teacher: Teacher, *, classes: int
    ) -> None:
        super().__init__()
        self.labels = labels
        self._config, self._teacher, self._classes = config, teacher, classes
        self._share = config.distill_share
        self._spec: ImageSpec | None = None
        self._kept: KeptOutputs | None = None
        self._token = False

    def attach(self, model: nn.Module, spec: ImageSpec, *, seed: int) -> None:
        """Learn how the student sees images, and whether it has a distillation token."""
        del seed
        self._spec, self._token = spec, _distillation_head(model) is not None

    def begin(self, images: Loader, *, console: Console | None) -> None:
        """Let the teacher look at every view of the images once, where these are few."""
        flips = views(images.augment)
        size = kept_bytes_of(len(images.items), len(flips), self._classes)
        plain = images.augment is None or images.augment.only_flips
        if self._config.teacher_cache == "none" or not plain or size > KEPT_BYTES or self._spec is None:
            return
        with progress_bar(console, "teacher", len(images.plain())) as bar:
            self._kept = KeptOutputs(
                images, flips, self._spec, classes=self._classes, compute=self._ask, bar=bar
            )

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The weighted sum; logs accuracy and how often student and teacher agree."""
        del draw
        taught, learnt = self._both(model, batch.images)
        teacher = self.teacher_logits(batch)
        if self._config.distillation == "hard":
            said = F.cross_entropy(learnt, teacher.argmax(1))
        else:
            heat = self._config.distill_temperature
            soft, wanted = (learnt / heat).log_softmax(1), (teacher / heat).log_softmax(1)
            said = heat**2 * F.kl_div(soft, wanted, reduction="batchmean", log_target=True)
        value = (1 - self._share) * self.labels.cross_entropy(taught, batch.targets) + self._share * said
        with torch.no_grad():
            answer = ((taught + learnt) / 2).argmax(1)
            accuracy = (answer == hard_labels(batch.targets)).float().mean()
            agreement = (answer == teacher.argmax(1)).float().mean()
        return Loss(value, {"accuracy": accuracy, "teacher_agreement": agreement})

    def teacher_logits(self, batch: Batch) -> Tensor:
        """(B, K) of the images as they are in the batch, kept or computed."""
        if self._kept is None:
            return self._ask(batch.images)
        outputs, known = self._kept.of(batch)
        outputs = outputs.to(batch.images.device)
        if not known.all():
            missing = (~known).to(batch.images.device)
            outputs[missing] = self._ask(batch.images[missing])
        return outputs

    def _ask(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or self._spec is None:
            raise ConfigError(
                "a teacher looks at images, and features of a frozen body are kept in their place",
                hint="tesela train DATA --tune head --tune-cache none",
            )
        return self._teacher.logits(images, self._spec)

    def _both(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits that the labels teach, and those that the teacher teaches."""
        head = _distillation_head(model)
        if head is None:
            logits = model(images).float()
            return logits, logits
        assert isinstance(model, Classifier)
        by_label, by_teacher = head.both(model.pooled(images))
        return by_label.float(), by_teacher.float()

    def notes(self) -> list[tuple[str, str]]:
        """The teacher and how it teaches, then how classes are weighted."""
        config = self._config
        soft = f", temperature {config.distill_temperature:g}" if config.distillation == "soft" else ""
        token = ", through the distillation token" if self._token else ""
        text = (
            f"{self._teacher.info.name} ({self._teacher.parameters:,} parameters), "
            f"{config.distillation} targets{soft}, {self._share:.0%} of the loss{token}"
        )
        return [("teacher", text), *self.labels.notes()]

    def get_extra_state(self) -> dict[str, Any]:
        """The teacher's digest, for checkpoints."""
        return {"teacher": self._teacher.digest}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse another teacher than that of the checkpoint.

        Raises:
            WeightsError: its weights, its view or its classes have changed.
        """
        if state.get("teacher") != self._teacher.digest:
            raise WeightsError(
                "the teacher has changed since the run began", hint="put it back, or begin a new run"
            )


def _distillation_head(model: nn.Module) -> DeiTHead | None:
    """The head with an output for the labels and one for the teacher."""
    head = getattr(model, "head", None)
    return head if isinstance(model, Classifier) and isinstance(head, DeiTHead) else None
