"""Graphs of exported programs: names of inputs and outputs, checked against the bundle.

A damaged or swapped file is named instead of answering nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tesela.core.errors import WeightsError
from tesela.models.bundle import BundleInfo
from tesela.runtime.backends.base import LOGITS

#: Name of the graph's only input, as ``tesela export`` writes it.
INPUT = "images"
ONNX_FILES = ("model.onnx", "model.onnx.data")


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
    if list(inputs) != [INPUT] or LOGITS not in outputs:
        raise WeightsError(
            f"{path} is not a graph from images to logits",
            hint="export the model again with tesela export",
        )
    spec, (takes, gives) = info.image, (list(inputs[INPUT])[1:], list(outputs[LOGITS])[1:2])
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
