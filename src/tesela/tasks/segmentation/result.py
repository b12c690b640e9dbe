"""Result of a segmenter: the class of each pixel of one image, and the area of each class."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tesela.data.masks.classes_file import hexadecimal
from tesela.imaging.mask import encode_mask
from tesela.imaging.overlay import overlaid
from tesela.tasks.result import Result

MENTIONED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """Pixels of one class in an image.

    Attributes:
        label: the class.
        index: its place among the model's labels.
        pixels: how many.
        share: of the image's pixels.
        color: such as ``#804080``.
    """

    label: str
    index: int
    color: str
    pixels: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Segmentation(Result):
    """Classes of one image's pixels.

    Attributes:
        mask: (H, W) class numbers at the image's own size; None where the image could not be read, and in a
            result without its files.
        size: (height, width) of the mask.
        counts: (K,) pixels of each class.
        labels: names of the classes.
        colours: of the classes, in pictures.
    """

    schema: ClassVar[dict[str, Any]] = {
        "height": "int64",
        "width": "int64",
        "areas": [
            {"label": "string", "index": "int64", "color": "string", "pixels": "int64", "share": "float64"}
        ],
    }
    body_schema: ClassVar[dict[str, Any]] = {"mask": "string"}

    mask: NDArray[np.uint8] | None = field(default=None, repr=False)
    size: tuple[int, int] | None = None
    counts: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()

    @property
    def areas(self) -> tuple[Area, ...]:
        """The classes that occur, the largest first."""
        if self.size is None:
            return ()
        order = np.argsort(-np.array(self.counts), kind="stable").tolist()
        total = self.size[0] * self.size[1]
        return tuple(
            Area(
                label=self.labels[index],
                index=index,
                color=hexadecimal(self.colours[index]),
                pixels=self.counts[index],
                share=self.counts[index] / total,
            )
            for index in order
            if self.counts[index]
        )

    def answer(self) -> dict[str, Any]:
        """Size of the mask, and the area of each class that occurs."""
        height, width = self.size or (None, None)
        areas = [
            {
                "label": area.label,
                "index": area.index,
                "color": area.color,
                "pixels": area.pixels,
                "share": area.share,
            }
            for area in self.areas
        ]
        return {"height": height, "width": width, "areas": areas}

    def cells(self) -> dict[str, str]:
        """The share of each class, in a column named after it."""
        if self.size is None:
            return {}
        found = {area.label: area.share for area in self.areas}
        return {label: repr(found.get(label, 0.0)) for label in self.labels}

    def text(self) -> str:
        """The largest classes with their shares."""
        largest = self.areas
        rest = len(largest) - MENTIONED
        more = f"  and {rest} more" if rest > 0 else ""
        return "  ".join(f"{area.label} {area.share:.1%}" for area in largest[:MENTIONED]) + more

    def bare(self) -> Segmentation:
        """Without the mask."""
        return replace(self, mask=None)

    def body(self) -> dict[str, Any]:
        """The answer, and the mask as a palette PNG in base64."""
        png = self.files().get(".png", b"")
        return {**self.answer(), "mask": base64.b64encode(png).decode("ascii")}

    def files(self) -> dict[str, bytes]:
        """The mask as a palette PNG, under the ending that it gets."""
        return {} if self.mask is None else {".png": encode_mask(self.mask, self.colours)}

    def drawn(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The mask laid over its image (H, W, 3)."""
        if self.mask is None or image.shape[:2] != self.mask.shape:
            return None
        return overlaid(image, self.mask, self.colours)


def segmentation(
    mask: NDArray[np.uint8], labels: tuple[str, ...], colours: tuple[tuple[int, int, int], ...]
) -> Segmentation:
    """The result that a mask (H, W) of class numbers makes."""
    counts = np.bincount(mask.reshape(-1), minlength=len(labels)).tolist()
    size = mask.shape[0], mask.shape[1]
    return Segmentation(mask=mask, size=size, counts=tuple(counts), labels=labels, colours=colours)
