"""ONNX graph of a network: any batch size, any height and width where the network allows it.

Odd: the exporter talks on the console and through warnings; both are held back, and shown only if it fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.config import to_mapping
from tesela.core.errors import ConfigError, MissingExtraError, WeightsError
from tesela.core.files import json_text
from tesela.runtime.backends.base import FEATURES, LOGITS
from tesela.runtime.backends.graph import INPUT

if TYPE_CHECKING:
    import torch

    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig
    from tesela.models.model import Model

#: Bytes of weights that a graph holds itself. More lie in model.onnx.data, which engines map where they would
#: copy; a copy of less is small beside what Python, NumPy and an engine take themselves, about 60 MB.
LARGEST_INSIDE = 32_000_000
#: Bytes of the smallest tensor that is laid outside, and multiples at which tensors begin there.
SMALLEST_OUTSIDE, ALIGNMENT = 16_384, 64
#: Operators that only cut or turn a weight; they are applied when the graph is written.
VIEWS = ("Slice", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
#: Most patches along a side of an image of a graph for any size.
MOST_CELLS = 1024
#: Smallest side in pixels of a graph for any size, unless its own is smaller.
LEAST_SIDE = 16
#: Step of sizes that every stride of a convolutional network divides.
COARSE = 32
#: What PyTorch's exporter colours words on a terminal with.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: Opset of the graphs: the newest that both ONNX Runtime and OpenVINO have had for years.
OPSET = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphFacts:
    """Description of a written graph.

    Attributes:
        outputs: names of what it gives.
        step: height and width must be multiples of these; None where the size is fixed.
        fixed_because: the part of the network that fixes the size.
    """

    outputs: tuple[str, ...]
    step: tuple[int, int] | None
    fixed_because: str = ""

    @property
    def any_size(self) -> bool:
        """Whether height and width are free."""
        return self.step is not None


def write_graph(
    model: Model, info: BundleInfo, path: Path, *, with_map: bool = False, with_features: bool = False
) -> GraphFacts:
    """Trace a network and save its graph.

    Args:
        model: as loaded for this export alone: its attention kernels and position tables are switched.
        info: its description, written into the graph's metadata.
        path: the file.
        with_map: give the default map and the rollout too.
        with_features: give what the head reads too.

    Raises:
        MissingExtraError: the exporter's packages are not installed.
        UsageError: the model's only output is its features already.
        WeightsError: the network cannot be exported; says which part, and what works.
    """
    from tesela.exporters.features import FeaturesModel
    from tesela.exporters.maps import MAP, ROLLOUT, ExplainingModel
    from tesela.layers.attention.attention import project_apart, set_attention_kernel

    network: torch.nn.Module = FeaturesModel(model) if with_features else model
    outputs: tuple[str, ...] = (LOGITS,)
    set_attention_kernel(model, "matmul")  # a fused kernel is written as more operators
    if with_map:
        network, outputs = ExplainingModel(model, features=with_features), (LOGITS, MAP, ROLLOUT)
    else:
        project_apart(model)
    if with_features:
        outputs += (FEATURES,)
    with silenced():
        program, step, reason = _free_program(network, model, outputs)
        if program is None:
            try:
                program = _program(network, model, None, outputs)
            except MissingExtraError:
                raise
            except Exception as error:
                raise WeightsError(
                    f"this network cannot be exported to ONNX: {_first_line(error)}",
                    hint="leave --with-map out"
                    if with_map
                    else "tesela export RUN --to compiled, or --to hf, --to timm",
                ) from error
        _name_free_sizes(program.model, step)
        fold_views(program.model)
        if with_map:
            share_transposed(program.model)
        for (
            node
        ) in program.model.graph.all_nodes():  # where in the source they came from: larger than small models
            node.metadata_props.clear()
        program.model.metadata_props.update(graph_metadata(info))
        save_model(program.model, path)
    _any_grid(model, False)
    return GraphFacts(outputs=outputs, step=step, fixed_because=reason)


def _free_program(
    network: torch.nn.Module, model: Model, outputs: tuple[str, ...]
) -> tuple[Any, tuple[int, int] | None, str]:
    """The program for any size and the step of its sizes; or neither, and the part that fixes the size."""
    reason = fixed_part(model)
    if reason:
        return None, None, reason
    height, width = model.config.image_size
    own = size_step(model.config)
    coarse = (math.lcm(own[0], COARSE), math.lcm(own[1], COARSE))
    fits = height % coarse[0] == 0 and width % coarse[1] == 0
    for step in dict.fromkeys([own, coarse] if fits else [own]):
        try:
            return _program(network, model, step, outputs), step, ""
        except MissingExtraError:
            raise
        except Exception as error:  # torch.export raises whatever it meets
            reason = f"PyTorch cannot trace it for any size: {_first_line(error)}"
    return None, None, reason


def fixed_part(model: Model) -> str:
    """The part of a network that fixes the size of its images; empty where none is known."""
    attention = getattr(model.config, "attention", "full")
    if attention in ("axial", "local"):
        return f"its {attention} attention cuts the grid into windows that depend on the size"
    if model.backbone.cuts_windows:
        return "its attention cuts the grids into windows that depend on the size"
    return ""


def size_step(config: ModelConfig) -> tuple[int, int]:
    """The smallest step by which height and width of an image may grow."""
    height, width = config.image_size

    def fits(size: tuple[int, int]) -> bool:
        try:
            config.grid(size)
        except ConfigError:
            return False
        return True

    down = next(step for step in range(1, height + 1) if height % step == 0 and fits((height + step, width)))
    right = next(step for step in range(1, width + 1) if width % step == 0 and fits((height, width + step)))
    return down, right


def free_sizes(own: tuple[int, int], step: tuple[int, int]) -> Any:
    """``dynamic_shapes`` of torch.export for images (B, C, H, W)."""
    import torch

    # so that no stride of the network is larger
    least = [max(2, min(LEAST_SIDE, side) // each) for side, each in zip(own, step, strict=True)]
    rows, columns = (
        torch.export.Dim(name, min=low, max=MOST_CELLS)
        for name, low in zip(("rows", "columns"), least, strict=True)
    )
    return {0: torch.export.Dim("batch", min=1), 2: step[0] * rows, 3: step[1] * columns}


def _program(
    network: torch.nn.Module, model: Model, step: tuple[int, int] | None, outputs: tuple[str, ...]
) -> Any:
    """The ONNX program of a network, whose images are free in size if ``step`` is given."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    height, width = model.config.image_size
    _any_grid(model, step is not None)
    if step is not None:
        height, width = height + step[0], width + 2 * step[1]
        width += step[1] if width == height else 0
    # tracing takes sizes that are equal here for the same size
    batch = next(size for size in (5, 7, 11) if size not in (model.config.channels, height, width))
    example = torch.zeros(batch, model.config.channels, height, width)
    shapes = (
        {0: torch.export.Dim("batch", min=1)} if step is None else free_sizes(model.config.image_size, step)
    )
    network = network.eval()
    if getattr(network, "differentiates", False):  # forward and backward pass as one list of operators
        from tesela.exporters.gradients import convolution_backward

        written = {torch.ops.aten.convolution_backward.default: convolution_backward}
        network = make_fx(
            network, decomposition_table=written, tracing_mode="symbolic", _allow_non_fake_inputs=True
        )(example)
    traced = torch.export.export(network, (example,), dynamic_shapes=(shapes,), strict=False)
    try:
        return torch.onnx.export(
            traced,
            (example,),
            input_names=[INPUT],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    except ImportError as error:
        raise MissingExtraError("the ONNX exporter", "export") from error


def _any_grid(model: Model, on: bool) -> None:
    """Let tables of positions be interpolated by matrix products, or by PyTorch's own operator."""
    for module in model.modules():
        if hasattr(module, "any_grid"):
            module.any_grid = on  # type: ignore[assignment]


def _name_free_sizes(graph_model: Any, step: tuple[int, int] | None) -> None:
    """Give the free dimensions of inputs and outputs names for people."""
    import onnx_ir

    graph = graph_model.graph
    names = ["batch", None, "height", "width"] if step is not None else ["batch", None, None, None]
    known: dict[str, str] = {}
    (images,) = graph.inputs
    shape = list(images.shape)
    for place, name in enumerate(names):
        if name is not None:
            known[str(shape[place])] = name
            shape[place] = onnx_ir.SymbolicDim(name)
    images.shape = onnx_ir.Shape(shape)
    for output in graph.outputs:
        if output.shape is not None:
            output.shape = onnx_ir.Shape(
                dim
                if isinstance(dim, int)
                else onnx_ir.SymbolicDim(known.get(str(dim), f"{output.name}_{place}"))
                for place, dim in enumerate(output.shape)
            )


def fold_views(graph_model: Any) -> None:
    """Replace cut or turned weights by constants.

    Engines need no copy of them then, int8 finds the layer, and OpenVINO meets no square weight beside its
    transpose.
    """
    from onnxscript.optimizer import fold_constants

    def is_view(node: Any) -> bool:
        return node.op_type in VIEWS and not node.domain

    fold_constants(
        graph_model, onnx_shape_inference=False, output_size_limit=sys.maxsize, should_fold=is_view
    )
    graph = graph_model.graph
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name]


def save_model(graph_model: Any, path: Path) -> None:
    """Write an ONNX model (onnx_ir): one file, or its large weights in a second one beside it.

    Args:
        graph_model: the model; its weights are those in the second file afterwards.
        path: of the graph; the second file has ``.data`` behind that name.
    """
    import onnx_ir

    values = [value for value in graph_model.graph.initializers.values() if value.const_value is not None]
    if sum(value.const_value.nbytes for value in values) > LARGEST_INSIDE:
        data = path.with_name(f"{path.name}.data")
        with data.open("wb") as stream:
            for value in values:
                tensor = value.const_value
                if tensor.nbytes < SMALLEST_OUTSIDE:
                    continue
                stream.write(bytes(-stream.tell() % ALIGNMENT))
                start = stream.tell()
                stream.write(tensor.tobytes())
                value.const_value = onnx_ir.ExternalTensor(
                    data.name,
                    start,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=value.name,
                    base_dir=path.parent,
                )
    onnx_ir.save(graph_model, path)


def share_transposed(graph_model: Any) -> None:
    """Store a weight once where forward and backward pass use it and its transpose.

    The transpose becomes an operator, which engines compute once when they load the graph. Square weights are
    stored twice: OpenVINO keeps one arranged copy of a constant for both, and computes with the wrong one.
    """
    import onnx_ir

    graph = graph_model.graph
    seen: dict[tuple[tuple[int, ...], bytes], Any] = {}
    for value in list(graph.initializers.values()):
        array = value.const_value.numpy()
        if array.ndim != 2 or array.size < 1024 or array.shape[0] == array.shape[1]:
            continue
        turned = (array.shape[::-1], hashlib.sha256(array.T.tobytes()).digest())
        if turned in seen and array.shape[0] != 1:
            node = onnx_ir.node("Transpose", inputs=[seen[turned]], attributes={"perm": [1, 0]})
            node.outputs[0].name = f"{value.name}_turned"
            node.outputs[0].shape, node.outputs[0].dtype = value.shape, value.dtype
            graph.insert_before(graph[0], node)
            value.replace_all_uses_with(node.outputs[0])
            del graph.initializers[value.name]
        else:
            seen[array.shape, hashlib.sha256(array.tobytes()).digest()] = value


def graph_metadata(info: BundleInfo) -> dict[str, str]:
    """What a program that has the graph alone needs to use it; ``labels`` and ``image`` are JSON.

    ``image`` is the preprocessing: size, how an image is fitted to it, mean and standard deviation per
    channel in units of 0..1.
    """
    return {
        "model": info.name,
        "task": info.task,
        "labels": json_text(info.labels),
        "image": json_text(to_mapping(info.image)),
        "license": info.license,
    }


def _first_line(error: BaseException) -> str:
    """The first line of the innermost error's message, cut to what a person reads."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hold back what the exporter prints, logs and warns."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo", "torch.fx")
    ]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
