"""A bundle's model.onnx in onnxruntime, on the CPU; torch is not imported.

Digests are checked before a file is parsed, and the graph's input and outputs against the bundle's image size
and labels. Weights in model.onnx.data are mapped, one after the other, while the engine arranges them anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tesela.core.errors import WeightsError
from tesela.core.pathnames import path_text
from tesela.hardware.machine import cores
from tesela.runtime.backends.base import BundleBackend, Precision, check_files
from tesela.runtime.backends.external import check_external
from tesela.runtime.backends.graph import INPUT, ONNX_FILES, check_graph


class OnnxruntimeBackend(BundleBackend):
    """An inference session over model.onnx; a thread for each core that the process may use, by default."""

    name = "onnxruntime"

    def precisions(self, own: Precision) -> tuple[Precision, ...]:
        """The graph's own, which has its types inside."""
        return (own,)

    def _open(self, threads: int | None) -> None:
        check_files(self.path.parent, self.info, ONNX_FILES)
        check_external(self.path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # a second plan of memory for each batch size, and no faster
        options.intra_op_num_threads = threads or cores()
        if self.precision == "int8-weights":  # become fp32 once, when the graph is loaded
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        graph, self._weights = _graph(self.path, options)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            raise WeightsError(
                f"onnxruntime cannot load {self.path}", hint="export the model again"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.outputs = check_graph(
            self.path,
            self.info,
            {value.name: value.shape for value in inputs},
            {value.name: value.shape for value in outputs},
        )

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""
        only = onnxruntime.RunOptions()
        only.only_execute_path_to_fetches = True  # maps cost a backward pass, which a prediction needs not
        found: NDArray[np.float32] = self._session.run(
            [name], {INPUT: np.ascontiguousarray(images, dtype=np.float32)}, only
        )[0]
        return found


def _graph(path: Path, options: Any) -> tuple[str | bytes, bytes]:
    """The path; the content of graph and weights where the engine takes no such path.

    It takes none that is not UTF-8, and no weights behind a symbolic link that leaves the folder. Odd: it
    computes from the content of the weights as it lies there, which must be kept as long as the session.
    """
    data = path.with_name(f"{path.name}.data")
    if path_text(path) == path.as_posix() and not data.is_symlink():
        return str(path), b""
    content = data.read_bytes() if data.is_file() else b""
    if content:
        options.add_external_initializers_from_files_in_memory([data.name], [content], [len(content)])
    return path.read_bytes(), content
