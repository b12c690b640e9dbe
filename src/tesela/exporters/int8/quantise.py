"""Static int8 of an ONNX graph (QDQ), calibrated on real images; and int8 weights alone.

Weights are symmetric int8 with a scale per output channel, activations uint8 with one scale and zero point
per tensor. Four steps keep a transformer's accuracy that a plain range per tensor loses:

- balancing (SmoothQuant, arXiv 2211.10438): channels that a LayerNorm makes large are divided by a factor
  there, and the weights of the layers that read it multiplied by it, which changes no result;
- rounding: weights make up for what others lost (``tesela.exporters.int8.rounding``);
- clipping: a tensor's range is the one with the least squared error over a histogram, not its extremes;
- measurement: while the predictions differ too much from fp32, the layers with the most error compute in
  fp32, from int8 weights.

Products of attention with itself stay in fp32: they are a tenth of the work and the most delicate part.
Odd: onnxruntime's own quantiser has neither balancing, this rounding nor squared-error ranges, so this
inserts operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError, WeightsError
from tesela.exporters.int8.histogram import Observed, observe
from tesela.exporters.int8.layers import Layer, balance, find_layers, load_graph, save_graph
from tesela.exporters.int8.rounding import Rounded, round_layers

#: Agreement with fp32 on the calibrating images that is aimed at, and the largest difference of a logit as a
#: share of the logits' standard deviation.
AIMED, DISTURBANCE = 0.995, 0.25
#: Share of the layers that are taken out at once, and most that are taken out in all.
PORTION, MOST = 0.08, 0.5
#: Fewest images that calibrate.
FEWEST = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """What became of a graph.

    Attributes:
        layers: number of layers with weights.
        kept: names of those that compute in fp32.
    """

    layers: int
    kept: list[str]


def quantise(source: Path, target: Path, images: NDArray[np.float32]) -> Quantised:
    """Write the int8 graph of an fp32 graph.

    Args:
        source: the fp32 graph, from ``images`` to ``logits``.
        target: the file to write.
        images: (N, C, h, w), normalised, to calibrate with.

    Raises:
        DataError: there are too few images.
        WeightsError: the graph has no layer that can be quantised.
    """
    if len(images) < FEWEST:
        raise DataError(
            f"int8 is calibrated with {FEWEST} images or more, not {len(images)}",
            hint="give more of them with --data; 100 are usual",
        )
    graph = load_graph(source)
    layers = find_layers(graph)
    if not layers:
        raise WeightsError("no layer of the graph has weights to quantise", hint="leave --precision out")
    balance(graph, layers, observe(graph, layers, images, channels=True))
    observed = observe(graph, layers, images)
    rounded = round_layers(graph, layers, images)
    wanted = _run(graph, images)
    order = _by_error(layers, observed, rounded)
    kept: list[Layer] = []
    while True:
        quantised = with_int8(graph, layers, rounded, observed, kept=kept)
        found = _run(quantised, images)
        if _agrees(wanted, found) or len(kept) >= MOST * len(layers):
            break
        more = max(1, round(PORTION * len(layers)))
        kept += [layer for layer in order if layer not in kept][:more]
    save_graph(quantised, target)
    return Quantised(layers=len(layers), kept=[layer.name for layer in kept])


def quantise_weights(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write a graph whose weights are int8, and become fp32 again before they are used.

    Args:
        source: the fp32 graph, from ``images`` to ``logits``.
        target: the file to write.
        images: (N, C, h, w), normalised, that say how to round; there may be none.
    """
    graph = load_graph(source)
    layers = find_layers(graph)
    rounded = round_layers(graph, layers, images if len(images) >= FEWEST else images[:0])
    save_graph(with_int8(graph, layers, rounded), target)


def with_int8(
    graph: Any,
    layers: Sequence[Layer],
    rounded: Mapping[str, Rounded],
    observed: Mapping[str, Observed] | None = None,
    *,
    kept: Sequence[Layer] = (),
) -> Any:
    """A copy of a graph with the int8 weights ``rounded``.

    With ``observed`` the inputs of layers that are not ``kept`` are uint8 too.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    nodes = {node.name: node for node in copy.graph.node}
    new: list[Any] = []
    replaced: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for layer in layers:
        node = nodes[layer.name]
        if layer.weight not in replaced:
            integers, scale = rounded[layer.weight].integers, rounded[layer.weight].scale
            name = f"{layer.weight}_int8"
            copy.graph.initializer.extend(
                [
                    numpy_helper.from_array(integers, name),
                    numpy_helper.from_array(scale, f"{name}_scale"),
                    numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}_zero"),
                ]
            )
            new.append(
                helper.make_node(
                    "DequantizeLinear",
                    [name, f"{name}_scale", f"{name}_zero"],
                    [f"{name}_fp32"],
                    name=f"{name}_dequantise",
                    axis=layer.axis,
                )
            )
            replaced[layer.weight] = f"{name}_fp32"
        node.input[1] = replaced[layer.weight]
        if observed is not None and layer not in kept:
            if layer.input not in inputs:
                inputs[layer.input] = _through_int8(copy, new, layer.input, observed[layer.input])
            node.input[0] = inputs[layer.input]
    _insert(copy, new)
    used = {name for node in copy.graph.node for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _through_int8(copy: Any, new: list[Any], name: str, observed: Observed) -> str:
    """Add the pair of operators that rounds a tensor to uint8; the name of its result."""
    from onnx import helper, numpy_helper

    scale, zero = observed.scale, observed.zero
    stem = f"{name}_uint8"
    copy.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(scale), f"{stem}_scale"),
            numpy_helper.from_array(np.uint8(zero), f"{stem}_zero"),
        ]
    )
    facts = [f"{stem}_scale", f"{stem}_zero"]
    new.append(helper.make_node("QuantizeLinear", [name, *facts], [stem], name=f"{stem}_quantise"))
    new.append(
        helper.make_node("DequantizeLinear", [stem, *facts], [f"{stem}_fp32"], name=f"{stem}_dequantise")
    )
    return f"{stem}_fp32"


def _insert(copy: Any, new: list[Any]) -> None:
    """Put new nodes right after what they read, so that the graph stays in order."""
    by_input: dict[str, list[Any]] = {}
    for node in new:
        by_input.setdefault(node.input[0], []).append(node)
    made = {name for node in copy.graph.node for name in node.output}
    ordered: list[Any] = []

    def follow(name: str) -> None:
        for node in by_input.get(name, ()):
            ordered.append(node)
            follow(node.output[0])

    for name in by_input:
        if name not in made and not name.endswith("_uint8"):
            follow(name)
    for node in copy.graph.node:
        ordered.append(node)
        for name in node.output:
            follow(name)
    ordered = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del copy.graph.node[:]
    copy.graph.node.extend(ordered)


def _by_error(
    layers: Sequence[Layer], observed: Mapping[str, Observed], rounded: Mapping[str, Rounded]
) -> list[Layer]:
    """Layers by the relative error of their results, the largest first."""

    def error(layer: Layer) -> float:
        seen = observed[layer.input]
        return float(seen.error / max(seen.power, 1e-30)) + rounded[layer.weight].error(layer)

    return sorted(layers, key=error, reverse=True)


def _agrees(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> bool:
    same = float((wanted.argmax(1) == found.argmax(1)).mean())
    return same >= AIMED and float(np.abs(wanted - found).mean()) <= DISTURBANCE * float(wanted.std())


def _run(graph: Any, images: NDArray[np.float32], *, batch: int = 8) -> NDArray[np.float32]:
    """Logits of a graph."""
    from tesela.exporters.int8.layers import open_session

    session = open_session(graph)
    return np.concatenate(
        [
            session.run(["logits"], {"images": images[first : first + batch]})[0]
            for first in range(0, len(images), batch)
        ]
    )
