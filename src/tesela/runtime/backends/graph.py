"""Graphs of exported programs: names of inputs and outputs, checked against the bundle, and computed.

A damaged or swapped file is named instead of answering nonsense.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import WeightsError
from tesela.models.bundle import BundleInfo
from tesela.runtime.backends.base import BundleBackend

#: Names of the graph's only input and of the output that every graph has, as ``tesela export`` writes them.
INPUT, OUTPUT = "images", "logits"
ONNX_FILES = ("model.onnx", "model.onnx.data")


class GraphBackend(BundleBackend):
    """An engine for graphs, which may have further outputs.

    Attributes:
        outputs: names of what the graph gives.
    """

    outputs: tuple[str, ...]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self.output(OUTPUT, images)

    @abstractmethod
    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""


def check_graph(
    path: Path,
    info: BundleInfo,
    inputs: Mapping[str, Sequence[object]],
    outputs: Mapping[str, Sequence[object]],
) -> tuple[str, ...]:
    """Compare a graph with the description beside it; the names of its outputs.

    Args:
        path: of the graph.
        info: the bundle's description.
        inputs: shapes by name; a dimension that is free is no integer.
        outputs: likewise.

    Raises:
        WeightsError: it is no graph from images to logits, or one for other images or classes.
    """
    if list(inputs) != [INPUT] or OUTPUT not in outputs:
        raise WeightsError(
            f"{path} is not a graph from images to logits",
            hint="export the model again with tesela export",
        )
    spec, (takes, gives) = info.image, (list(inputs[INPUT])[1:], list(outputs[OUTPUT])[1:2])
    wanted = [spec.channels, spec.height, spec.width]
    if not info.num_classes:  # any width is an embedding's
        gives = gives and [0]
    if not _fits(takes, wanted) or not _fits(gives, [info.num_classes]):
        raise WeightsError(
            f"{path} takes {takes} and gives {gives[0] if gives else 'nothing'} classes, config.json says "
            f"{wanted} and {info.num_classes}",
            hint="export the model again",
        )
    return tuple(outputs)


def _fits(found: Sequence[object], wanted: Sequence[int]) -> bool:
    """Whether the dimensions are the wanted ones, where they are fixed."""
    return len(found) == len(wanted) and all(
        one == other for one, other in zip(found, wanted, strict=True) if isinstance(one, int)
    )
