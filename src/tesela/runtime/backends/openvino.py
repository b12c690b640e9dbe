"""A bundle's openvino.xml, or model.onnx, in OpenVINO, on the CPU; torch is not imported.

OpenVINO reads an ONNX graph as it is and computes it in fp32 or bf16. What it computes in is always said to
it, for its own choice depends on the processor.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from tesela.core.errors import WeightsError
from tesela.hardware.openvino_core import openvino_core
from tesela.runtime.backends.base import BundleBackend, Precision, check_files
from tesela.runtime.backends.external import check_external
from tesela.runtime.backends.graph import INPUT, ONNX_FILES, check_graph

IR_FILES = ("openvino.xml", "openvino.bin")
#: What is left to the engine in a graph of other precisions, whose types are inside.
HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenvinoBackend(BundleBackend):
    """A compiled model of OpenVINO, over openvino.xml or model.onnx."""

    name = "openvino"

    def precisions(self, own: Precision) -> tuple[Precision, ...]:
        """The program's own; one in fp32 may be computed in bf16."""
        return ("fp32", "bf16") if own == "fp32" else (own,)

    def _open(self, threads: int | None) -> None:
        path = self.path
        check_files(path.parent, self.info, ONNX_FILES if path.name in ONNX_FILES else IR_FILES)
        if path.name in ONNX_FILES:
            check_external(path)
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.precision in HINTS:
            self._settings["INFERENCE_PRECISION_HINT"] = HINTS[self.precision]
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._core = openvino_core()
        self._requests: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._lock = threading.Lock()  # a request computes for one at a time
        with self._loading():
            self._graph = self._core.read_model(path)
            inputs, outputs = _shapes(self._graph.inputs), _shapes(self._graph.outputs)
            self.outputs = check_graph(path, self.info, inputs, outputs)
        self._free = None in inputs[INPUT]

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""
        key = name, self._shape(images.shape)
        with self._lock:
            if key not in self._requests:
                with self._loading():
                    self._requests[key] = self._request(*key)
            request = self._requests[key]
            request.infer({INPUT: np.ascontiguousarray(images, dtype=np.float32)}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)

    def _shape(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """What a graph is compiled for: one image, any number (-1) of the model's size, or as it is: ().

        Where sizes are known, positions are resized once, and plans of loops and memory are made once.
        """
        if not self._free or wanted[2:] != self.info.image.size:
            return ()
        return (1 if wanted[0] == 1 else -1, *wanted[1:])

    def _request(self, name: str, shape: tuple[int, ...]) -> Any:
        """A request for one output: maps cost a backward pass, which a prediction needs not."""
        graph = self._graph.clone() if shape else self._graph
        if len(self.outputs) > 1:
            graph = openvino.Model([graph.output(name).node], graph.get_parameters(), name)
        if shape:
            graph.reshape(list(shape))
        return self._core.compile_model(graph, "CPU", self._settings).create_infer_request()

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Errors of the engine with the file that they are about."""
        path = self.path
        try:
            yield
        except RuntimeError as error:  # openvino's own errors are of this kind
            if path.with_name(f"{path.name}.data").is_symlink():
                raise WeightsError(
                    f"OpenVINO cannot load {path}: its weights are a symbolic link",
                    hint="copy the files themselves, with cp -rL",
                ) from error
            raise WeightsError(f"OpenVINO cannot load {path}", hint="export the model again") from error


def _shapes(ports: Any) -> dict[str, list[object]]:
    """Shapes by name; free dimensions are None."""
    return {
        port.get_any_name(): [dim.get_length() if dim.is_static else None for dim in port.get_partial_shape()]
        for port in ports
    }
