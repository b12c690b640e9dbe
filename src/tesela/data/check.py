"""Report on a data set: counts, sizes, balance, unreadable files, duplicates across splits.

Every image is read once. Duplicates are found by the SHA-256 of an image's pixels and its size, so a file
that was copied under another name or stored again without loss is seen too. Under two labels one of them is
wrong; across splits it makes a test score too good; inside one split it only counts twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tesela.core.files import sha256_bytes
from tesela.data.levels import level_notes
from tesela.data.masks.check import MaskReport, mask_reports
from tesela.data.scan import Unreadable, attempt, in_threads, is_plain
from tesela.data.source import Items, Source, decode_limits
from tesela.data.targets import label_counts
from tesela.imaging.decode import image_facts

#: The largest class may have this many times the images of the smallest before a note is made.
IMBALANCE = 10.0
#: Pairs named in a note; the whole list is in the JSON.
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one readable image."""

    size: tuple[int, int]
    mode: str
    digest: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where an image is."""

    name: str
    split: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """The same pixels twice.

    Attributes:
        first: name of the image that comes first.
        second: name of the other one.
        splits: of both.
        labels: of both; two equal empty ones where there are no labels.
    """

    first: str
    second: str
    splits: tuple[str, str]
    labels: tuple[str, str]

    def mapping(self) -> dict[str, object]:
        """The duplicate for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "splits": list(self.splits),
            "labels": list(self.labels),
        }


@dataclass(kw_only=True, slots=True)
class Report:
    """The result of ``check``.

    Attributes:
        counts: split -> images per class, in the labels' order.
        unreadable: split -> list.
        sizes: (height, width) -> images.
        modes: format and layout, such as "JPEG RGB" -> images.
        duplicates: the same pixels twice, in one split or two.
        notes: remarks for people.
        masks: what the masks of each split hold, where there are masks.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    cut: tuple[str, ...]
    counts: dict[str, list[int]]
    unreadable: dict[str, list[Unreadable]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    duplicates: list[Duplicate] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    masks: dict[str, MaskReport] | None = None

    @property
    def images(self) -> int:
        """Images in all splits."""
        return sum(sum(counts) for counts in self.counts.values())

    @property
    def conflicts(self) -> list[Duplicate]:
        """Duplicates under two labels."""
        return [twin for twin in self.duplicates if twin.labels[0] != twin.labels[1]]

    @property
    def leaks(self) -> list[Duplicate]:
        """Duplicates in two splits."""
        return [twin for twin in self.duplicates if twin.splits[0] != twin.splits[1]]

    @property
    def balance(self) -> float:
        """Training images, or pixels of masks, of the largest class over those of the smallest."""
        counts = self.counts.get("train", [])
        if self.masks is not None:
            counts = self.masks["train"].pixels.tolist()
        present = [count for count in counts if count]
        return max(present) / min(present) if present else 0.0

    def mapping(self) -> dict[str, object]:
        """The report for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "images": self.images,
            "labels": list(self.labels),
            "splits": {split: sum(counts) for split, counts in self.counts.items()},
            "counts": {
                split: dict(zip(self.labels, counts, strict=True)) for split, counts in self.counts.items()
            },
            "cut": list(self.cut),
            "balance": round(self.balance, 3),
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.most_common()},
            "modes": dict(self.modes.most_common()),
            "unreadable": [
                {"split": split, "name": bad.name, "code": bad.code, "message": bad.message}
                for split, found in self.unreadable.items()
                for bad in found
            ],
            "duplicates": [twin.mapping() for twin in self.duplicates],
            "conflicts": [twin.mapping() for twin in self.conflicts],
            "ignored": list(self.ignored),
            "notes": self.notes,
            **(
                {"masks": {split: one.mapping(self.labels) for split, one in self.masks.items()}}
                if self.masks is not None
                else {}
            ),
        }


def check(source: Source) -> Report:
    """Read all images of a source and report."""
    report = Report(
        name=source.name,
        kind=source.kind,
        labels=source.labels,
        cut=source.cut,
        counts=label_counts(source),
        ignored=source.ignored,
    )
    seen: dict[str, Sighting] = {}
    for split, items in source.splits.items():
        report.unreadable[split] = []
        results = in_threads(
            lambda index, items=items: attempt(items, index, lambda: facts(items, index)),  # type: ignore[misc]
            len(items),
        )
        for index, result in enumerate(results):
            if isinstance(result, Unreadable):
                report.unreadable[split].append(result)
            else:
                label = "" if source.masks is not None else source.labels[items.targets[index]]
                _note(report, result, Sighting(items.name(index), split, label), seen)
    report.masks = mask_reports(source)
    report.notes = [*source.notes, *_notes(report), *level_notes(source.splits["train"])]
    return report


def facts(items: Items, index: int) -> Facts:
    """Size, layout and digest of one image.

    Raises:
        ImageError: it cannot be decoded.
    """
    pixels = items.read(index)
    digest = sha256_bytes(np.ascontiguousarray(pixels).data) + f"{pixels.shape}"
    return Facts((pixels.shape[0], pixels.shape[1]), _mode(items, index, pixels.shape[2]), digest)


def _mode(items: Items, index: int, channels: int) -> str:
    data = None if is_plain(items) else items.raw(index)
    if data is None:
        return {1: "plain grey", 3: "plain RGB"}.get(channels, f"plain, {channels} channels")
    kind, mode, _ = image_facts(data, limits=decode_limits(items))
    return f"{kind} {mode}"


def _note(report: Report, fact: Facts, place: Sighting, seen: dict[str, Sighting]) -> None:
    report.sizes[fact.size] += 1
    report.modes[fact.mode] += 1
    first = seen.setdefault(fact.digest, place)
    if first is not place:
        report.duplicates.append(
            Duplicate(
                first=first.name,
                second=place.name,
                splits=(first.split, place.split),
                labels=(first.label, place.label),
            )
        )


def _examples(twins: Sequence[Duplicate]) -> str:
    more = f" and {len(twins) - _EXAMPLES} more" if len(twins) > _EXAMPLES else ""
    return (
        "; ".join(
            f"{twin.first} ({twin.labels[0]}) and {twin.second} ({twin.labels[1]})"
            for twin in twins[:_EXAMPLES]
        )
        + more
    )


def _notes(report: Report) -> list[str]:
    notes = []
    if report.cut:
        notes.append("cut out of train, reproducibly: " + ", ".join(report.cut))
    if report.balance > IMBALANCE:
        notes.append(
            f"classes are unbalanced: the largest has {report.balance:,.0f} times the "
            f"{'images' if report.masks is None else 'pixels'} of the smallest"
        )
    if report.conflicts:
        notes.append(
            f"{len(report.conflicts)} images are there under another label too, one of which is wrong: "
            + _examples(report.conflicts)
        )
    if report.leaks:
        notes.append(f"{len(report.leaks)} images are in two splits: scores on val and test will be too good")
    inside = len(report.duplicates) - len(report.leaks)
    if inside:
        notes.append(f"{inside} images are copies of others in the same split")
    if report.ignored:
        notes.append(
            f"{len(report.ignored)} files are no images of a class and were ignored, such as "
            f"{report.ignored[0]}"
        )
    return notes
