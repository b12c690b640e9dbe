"""Report on masks: pixels and images of each class, unusable masks, masks without a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tesela.data.masks.survey import Fault, survey
from tesela.data.masks.targets import MaskTargets
from tesela.data.source import Source
from tesela.data.targets import LabelTargets, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskReport:
    """Masks of one split.

    Attributes:
        pixels: (K,) of each class.
        images: (K,) in which each class occurs.
        ignored: share of all pixels that belong to no class.
        faults: masks that cannot be used.
        empty: names of images whose pixels are all ignored.
    """

    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    ignored: float
    faults: tuple[Fault, ...]
    empty: tuple[str, ...]

    def share(self, label: int) -> float:
        """Share of a class among the pixels that count."""
        return float(self.pixels[label] / max(1, self.pixels.sum()))

    def mapping(self, labels: Sequence[str]) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "pixels": dict(zip(labels, self.pixels.tolist(), strict=True)),
            "images": dict(zip(labels, self.images.tolist(), strict=True)),
            "ignored": self.ignored,
            "faults": [
                {"name": fault.name, "message": fault.message, "hint": fault.hint} for fault in self.faults
            ],
            "empty": list(self.empty),
        }


class ListedMasks(MaskTargets):
    """Masks whose faults are listed, not refused."""

    def check(self, source: Source) -> None:
        """Let everything pass."""


def listed_targets(source: Source) -> Targets:
    """Targets for a report: faults of masks are no reason to stop."""
    return LabelTargets(source.labels) if source.masks is None else ListedMasks(source.masks)


def mask_reports(source: Source) -> dict[str, MaskReport] | None:
    """A report for each split; None where there are no masks."""
    if source.masks is None:
        return None
    reports: dict[str, MaskReport] = {}
    for split, items in source.splits.items():
        found = survey(items, source.masks)
        pixels = found.pixels[:, :-1]
        total = int(found.pixels.sum())
        reports[split] = MaskReport(
            pixels=pixels.sum(0),
            images=(pixels > 0).sum(0),
            ignored=int(found.pixels[:, -1].sum()) / total if total else 0.0,
            faults=found.faults,
            empty=tuple(items.name(index) for index in found.empty),
        )
    return reports
