"""Rounding of weights to int8 that spares the results of a layer rather than each weight.

The rows of a matrix product's weights are rounded one after another, and what a row lost is made up for by
the rows that are not rounded yet, as far as their inputs go together (GPTQ, arXiv 2210.17323, algorithm 1;
the order is that of the inputs' power). Convolutions are rounded to the nearest integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.exporters.int8.layers import Layer, open_session

#: Added to the moments' diagonal, as a share of its mean: rows that no input was seen of go to the nearest.
DAMPING = 0.01
#: Rows that are rounded before the others hear of it.
ROWS_AT_ONCE = 128
#: Bytes of the moments that are held at a time.
MOMENTS_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rounded:
    """Weights as integers.

    Attributes:
        integers: in the shape of the weights, -127 to 127.
        scale: of each output channel.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]

    def error(self, layer: Layer) -> float:
        """Mean squared error as a share of the weights' mean square."""
        shape = [-1 if place == layer.axis else 1 for place in range(layer.values.ndim)]
        lost = np.square(self.integers * self.scale.reshape(shape) - layer.values).mean()
        return float(lost / max(np.square(layer.values).mean(), 1e-30))


def round_layers(
    graph: Any, layers: Sequence[Layer], images: NDArray[np.float32], *, batch: int = 4
) -> dict[str, Rounded]:
    """Integers of every layer's weights, by the name of the weights.

    Args:
        graph: the ONNX model that the layers are of.
        layers: all whose weights become integers.
        images: (N, C, h, w), normalised, that show what the inputs are; every weight goes to the nearest
            integer where there are none.
        batch: images at a time.
    """
    found: dict[str, Rounded] = {}
    products = [layer for layer in layers if layer.operator != "Conv" and layer.input != "images"]
    for group in _groups(products) if len(images) else ():
        moments = _second_moments(graph, sorted({layer.input for layer in group}), images, batch)
        inputs: dict[str, set[str]] = {}
        for layer in group:
            inputs.setdefault(layer.weight, set()).add(layer.input)
        alike: dict[tuple[str, ...], dict[str, Layer]] = {}
        for layer in group:
            alike.setdefault(tuple(sorted(inputs[layer.weight])), {})[layer.weight] = layer
        for names, readers in alike.items():
            seen = np.mean([moments[name] for name in names], axis=0)
            found |= _rounded_together(list(readers.values()), seen)
    for layer in layers:
        if layer.weight not in found:
            found[layer.weight] = Rounded(*symmetric(layer.values, layer.axis))
    return found


def symmetric(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Nearest integers, and scales of the channels along ``axis``, those with the least squared error."""
    flat = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    largest = np.abs(flat).max(1)
    largest[largest == 0] = 1.0
    best, scale = np.full(len(flat), np.inf), largest / 127
    for share in (1.0, 0.95, 0.9, 0.85, 0.8):
        tried = largest * share / 127
        rounded = np.clip(np.rint(flat / tried[:, None]), -127, 127) * tried[:, None]
        error = np.square(rounded - flat).sum(1)
        scale = np.where(error < best, tried, scale)
        best = np.minimum(best, error)
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    integers = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    return integers, scale.astype(np.float32)


def round_rows(
    weights: NDArray[np.float32], scale: NDArray[np.float32], moments: NDArray[np.float32]
) -> NDArray[np.int8]:
    """Integers (I, O) whose products with the inputs are near those of the weights.

    Args:
        weights: (I, O).
        scale: (O,), of each column.
        moments: (I, I), mean of x xT over the inputs x.
    """
    power = np.diag(moments)
    if not power.max(initial=0.0) > 0:
        nearest: NDArray[np.int8] = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        return nearest
    order = np.argsort(-power, kind="stable")
    hessian = moments[np.ix_(order, order)].astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += DAMPING * power.mean()
    # the upper factor U of the inverse, U^T U; row i tells what rounding row i does to the rows below it
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left = weights[order].astype(np.float64)
    integers = np.zeros(left.shape)
    for begin in range(0, len(left), ROWS_AT_ONCE):
        end = min(len(left), begin + ROWS_AT_ONCE)
        errors = np.zeros((end - begin, left.shape[1]))
        for row in range(begin, end):
            integers[row] = np.clip(np.rint(left[row] / scale), -127, 127)
            errors[row - begin] = (left[row] - integers[row] * scale) / factor[row, row]
            left[row + 1 : end] -= factor[row, row + 1 : end, None] * errors[row - begin]
        left[end:] -= factor[begin:end, end:].T @ errors
    back = np.empty(left.shape, np.int8)
    back[order] = integers
    return back


def _rounded_together(layers: Sequence[Layer], moments: NDArray[np.float32]) -> dict[str, Rounded]:
    """Integers of the weights of layers with the same inputs, by the name of the weights."""
    scales = [symmetric(layer.values, layer.axis)[1] for layer in layers]
    by_input = [layer.values if layer.axis == 1 else layer.values.T for layer in layers]
    whole = round_rows(np.hstack(by_input), np.concatenate(scales), moments)
    parts = np.split(whole, np.cumsum([len(scale) for scale in scales])[:-1], axis=1)
    return {
        layer.weight: Rounded(np.ascontiguousarray(part if layer.axis == 1 else part.T), scale)
        for layer, part, scale in zip(layers, parts, scales, strict=True)
    }


def _groups(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers whose moments are held together; all that share weights are in one group."""
    by_weight: dict[str, list[Layer]] = {}
    for layer in layers:
        by_weight.setdefault(layer.weight, []).append(layer)
    group: list[Layer] = []
    inputs: set[str] = set()
    size = 0
    for readers in by_weight.values():
        width = readers[0].values.size // readers[0].values.shape[readers[0].axis]
        more = 4 * width**2 * len({layer.input for layer in readers} - inputs)
        if group and size + more > MOMENTS_BYTES:
            yield group
            group, inputs, size = [], set(), 0
            more = 4 * width**2 * len({layer.input for layer in readers})
        group += readers
        inputs |= {layer.input for layer in readers}
        size += more
    if group:
        yield group


def _second_moments(
    graph: Any, names: Sequence[str], images: NDArray[np.float32], batch: int
) -> dict[str, NDArray[Any]]:
    """Mean of x xT over the rows x of tensors."""
    session = open_session(graph, outputs=names)
    sums: dict[str, NDArray[Any]] = {}
    rows = dict.fromkeys(names, 0)
    for first in range(0, len(images), batch):
        values = session.run(list(names), {"images": images[first : first + batch]})
        for name, value in zip(names, values, strict=True):
            flat = value.reshape(-1, value.shape[-1])
            sums[name] = sums[name] + flat.T @ flat if name in sums else flat.T @ flat
            rows[name] += len(flat)
    return {name: total / rows[name] for name, total in sums.items()}
