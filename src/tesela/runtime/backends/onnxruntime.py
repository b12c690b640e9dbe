"""A bundle's model.onnx in onnxruntime, on the CPU; torch is not imported.

The file's digest is checked before it is parsed, and the graph's input and outputs against the bundle's image
size and labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tesela.core.errors import ConfigError, WeightsError
from tesela.core.pathnames import path_text
from tesela.hardware.machine import cores
from tesela.models.bundle import BundleInfo
from tesela.runtime.backends.base import Precision, check_files, own_precision
from tesela.runtime.backends.graph import INPUT, ONNX_FILES, OUTPUT, check_graph


class OnnxruntimeBackend:
    """An inference session over model.onnx.

    Args:
        bundle: the folder with model.onnx.
        info: the bundle's description.
        threads: threads within an operator; None takes one for each core that the process may use.
        precision: the graph's own, which has its types inside.

    Attributes:
        outputs: names of what the graph gives.

    Raises:
        ConfigError: another precision is wanted.
        WeightsError: the graph is damaged, or does not fit its bundle.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Path,
        info: BundleInfo,
        *,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.precision = own_precision(info)
        if precision not in (None, self.precision):
            raise ConfigError(
                f"the onnxruntime backend cannot compute a graph in {precision} that is in {self.precision}",
                hint=f"use {self.precision}, or the torch or openvino backend",
            )
        check_files(bundle, info, ONNX_FILES)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or cores()
        if self.precision == "int8-weights":  # become fp32 once, when the graph is loaded
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                _graph(bundle / ONNX_FILES[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            raise WeightsError(
                f"onnxruntime cannot load {bundle / ONNX_FILES[0]}", hint="export the model again"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.outputs = check_graph(
            bundle / ONNX_FILES[0],
            info,
            {value.name: value.shape for value in inputs},
            {value.name: value.shape for value in outputs},
        )

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self.output(OUTPUT, images)

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""
        only = onnxruntime.RunOptions()
        only.only_execute_path_to_fetches = True  # maps cost a backward pass, which a prediction needs not
        found: NDArray[np.float32] = self._session.run(
            [name], {INPUT: np.ascontiguousarray(images, dtype=np.float32)}, only
        )[0]
        return found


def _graph(path: Path) -> str | bytes:
    """The path; the file itself where the engine takes no path that is not UTF-8."""
    return str(path) if path_text(path) == path.as_posix() else path.read_bytes()
