"""Layers with weights in an ONNX graph, and the balancing of channels between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tesela.core.errors import WeightsError

if TYPE_CHECKING:
    from tesela.exporters.int8.histogram import Observed

#: A graph in memory ends at 2 GiB, the most that protobuf holds.
LARGEST_GRAPH = 1_800_000_000
#: Weights below this many values are not worth a conversion.
SMALLEST_LAYER = 256
#: Share of a channel's range that balancing moves from activations to weights.
ALPHA = 0.5
#: Operators that leave each channel, the last axis, where it is.
CHANNELWISE = ("Slice", "Identity")


@dataclass(eq=False, kw_only=True, slots=True)
class Layer:
    """A matrix product or convolution with constant weights.

    Attributes:
        name: of its node.
        operator: MatMul, Gemm or Conv.
        input: name of the tensor that it reads.
        weight: name of the weights.
        values: the weights.
        axis: of the output channels in them.
    """

    name: str
    operator: str
    input: str
    weight: str
    values: NDArray[np.float32]
    axis: int


def load_graph(path: Path) -> Any:
    """The ONNX model of a file, every node with a name.

    Raises:
        WeightsError: it is larger than a graph in memory can be.
    """
    import onnx

    data = path.with_name(f"{path.name}.data")
    if data.is_file() and data.stat().st_size > LARGEST_GRAPH:
        raise WeightsError(
            "the model is too large for int8: its fp32 graph has more than 2 GB",
            hint="use --precision fp32, or bf16 with --to openvino or --to compiled",
        )
    graph = onnx.load(path)
    for number, node in enumerate(graph.graph.node):
        node.name = f"n{number}_{node.op_type}"
    return graph


def save_graph(graph: Any, path: Path) -> None:
    """Write an ONNX model, large weights in a second file beside it."""
    import onnx_ir

    from tesela.exporters.graph import save_model

    save_model(onnx_ir.from_proto(graph), path)


def open_session(graph: Any, *, outputs: Sequence[str] = ()) -> Any:
    """A session over a model in memory, with further tensors as outputs."""
    import onnx

    if outputs:
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        known = {value.name for value in copy.graph.output}
        copy.graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name not in known
        )
        graph = copy
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def find_layers(graph: Any) -> list[Layer]:
    """All layers, in the order of the graph."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[1] not in tensors:
            continue
        tensor = tensors[node.input[1]]
        if tensor.data_type != 1 or int(np.prod(tensor.dims)) < SMALLEST_LAYER or node.input[0] in tensors:
            continue
        values = numpy_helper.to_array(tensor)
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        if node.op_type != "Conv" and values.ndim != 2:
            continue
        axis = 0 if node.op_type == "Conv" or turned else 1
        found.append(
            Layer(
                name=node.name,
                operator=node.op_type,
                input=node.input[0],
                weight=node.input[1],
                values=values,
                axis=axis,
            )
        )
    return found


def balance(graph: Any, layers: Sequence[Layer], observed: Mapping[str, Observed]) -> None:
    """Move the range of large channels from what a LayerNorm gives into the weights that read it."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    by_name = {layer.name: layer for layer in layers}
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.graph.node:
        if node.op_type != "LayerNormalization" or not all(name in tensors for name in node.input[1:3]):
            continue
        fed = _layers_fed(node.output[0], readers, by_name)
        shared = any(len(readers[name]) > 1 for name in node.input[1:3]) or any(
            len(readers[layer.weight]) > 1 for layer in fed
        )
        if not fed or shared or len(node.input) < 3:
            continue
        largest = np.max(np.stack([observed[layer.input].channels for layer in fed]), axis=0)
        inner = [np.abs(layer.values).max(layer.axis) for layer in fed]
        weights = np.max(inner, axis=0)
        factor = np.maximum(largest, 1e-5) ** ALPHA / np.maximum(weights, 1e-5) ** (1 - ALPHA)
        factor = np.clip(factor / np.exp(np.log(factor).mean()), 1e-2, 1e2).astype(np.float32)
        for name in node.input[1:3]:
            moved = numpy_helper.to_array(tensors[name]) / factor
            tensors[name].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), name))
        for layer in fed:
            layer.values = (layer.values * (factor[:, None] if layer.axis == 1 else factor[None])).astype(
                np.float32
            )
            tensors[layer.weight].CopyFrom(numpy_helper.from_array(layer.values, layer.weight))


def _layers_fed(name: str, readers: Mapping[str, list[Any]], by_name: Mapping[str, Layer]) -> list[Layer]:
    """The layers that read a tensor, if nothing else does; its shape may be asked for."""
    found: list[Layer] = []
    for node in readers.get(name, ()):
        if node.op_type == "Shape":
            continue
        layer = by_name.get(node.name)
        if layer is not None and layer.operator != "Conv" and node.input[0] == name:
            found.append(layer)
        elif node.op_type in CHANNELWISE and node.input[0] == name:
            further = _layers_fed(node.output[0], readers, by_name)
            if not further:
                return []
            found += further
        else:
            return []
    return found
