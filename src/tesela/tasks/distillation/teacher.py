"""Teacher: a frozen classifier that looks at the images of a student.

Both see the same crop: the student's images, mixed and augmented as they are, are brought to the size, the
channels and the normalisation of the teacher. Classes are matched by name.

Odd: a teacher is no module, so that neither checkpoints nor optimizers nor copies of an objective hold it; a
checkpoint has its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from tesela.checkpoints.open import open_model
from tesela.core.errors import DataError, UsageError
from tesela.data.targets import match_labels
from tesela.imaging.color import LUMA
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import BundleInfo
from tesela.models.classifier import Classifier
from tesela.models.model import Model


class Teacher:
    """A trained classifier, asked for the logits of a student's classes.

    Args:
        source: a run, a bundle or a checkpoint.
        labels: the student's K classes; the teacher may know more.

    Attributes:
        info: of its bundle.
        digest: of its weights, its view and the order of its classes.

    Raises:
        UsageError: there is nothing at ``source``, or no trained classifier.
        WeightsError: it is damaged.
        DataError: it does not know a class; it is named.
    """

    def __init__(self, source: str, labels: Sequence[str]) -> None:
        model, self.info = open_model(source)
        if not isinstance(model, Classifier) or not _trained(self.info):
            what = "has no trained head" if isinstance(model, Classifier) else "is no classifier of images"
            raise UsageError(
                f"the teacher {source} {what}",
                hint="name a classifier that knows the classes: tesela train DATA --teacher RUN",
            )
        try:
            places = match_labels(labels, self.info.labels)
        except DataError as error:
            known = ", ".join(self.info.labels[:5]) + (" ..." if len(self.info.labels) > 5 else "")
            raise DataError(
                f"the teacher {source} does not fit: {error.message.replace('the model', 'it')}",
                hint=f"it knows {known}; name a teacher of the data's classes, or choose among them: "
                "tesela train DATA --data.classes A,B",
            ) from error
        self._model: Model = model.eval().requires_grad_(False)
        self._places = torch.from_numpy(places)
        self.digest = _digest(model, self.info)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: nothing of it changes."""
        return self

    @property
    def parameters(self) -> int:
        """Number of its weights."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def logits(self, images: Tensor, spec: ImageSpec) -> Tensor:
        """Logits (B, K) of the student's classes, float32, without gradient.

        Args:
            images: (B, C, h, w), normalised for the student.
            spec: the student's view.
        """
        device = images.device
        self._model, self._places = self._model.to(device), self._places.to(device)
        with torch.no_grad():
            found: Tensor = self._model(seen_by(images, spec, self.info.image)).float()
        return found[:, self._places]


def seen_by(images: Tensor, mine: ImageSpec, other: ImageSpec) -> Tensor:
    """Images (B, C, h, w), normalised for one view, as another one wants them (B, C', H, W).

    They are resized as they are, whatever their aspect; grey is repeated, colour weighted by ``LUMA``.
    """
    if mine.size == other.size and (mine.channels, mine.mean, mine.std) == (
        other.channels,
        other.mean,
        other.std,
    ):
        return images
    values = images.float() * _column(mine.std, images) + _column(mine.mean, images)  # 0 to 1
    if mine.size != other.size:
        values = F.interpolate(values, size=other.size, mode="bilinear", antialias=True, align_corners=False)
    if mine.channels < other.channels:
        values = values.expand(-1, other.channels, -1, -1)
    elif mine.channels > other.channels:
        values = (values * _column(LUMA, images)).sum(1, keepdim=True)
    return (values - _column(other.mean, images)) / _column(other.std, images)


def _column(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)


def _trained(info: BundleInfo) -> bool:
    """Whether the head is of the checkpoint, and not a new one of zeros."""
    origin = info.provenance.get("source")
    return not isinstance(origin, dict) or origin.get("head", True) is not False


def _digest(model: Model, info: BundleInfo) -> str:
    """SHA-256 of the weights, the view and the classes."""
    found = hashlib.sha256(f"{info.image} {info.labels}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
