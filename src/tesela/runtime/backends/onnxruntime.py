"""A bundle's model.onnx in onnxruntime, on the CPU; torch is not imported.

The file's digest is checked before it is parsed, and the graph's input and output against the bundle's image
size and labels, so that a damaged or swapped file is named instead of answering nonsense.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tesela.core.errors import ConfigError, WeightsError
from tesela.core.files import sha256_file
from tesela.core.pathnames import path_text
from tesela.models.bundle import BundleInfo

#: The names of the graph's only input and output, as ``tesela.exporters.onnx`` writes them.
INPUT, OUTPUT = "images", "logits"
FILES = ("model.onnx", "model.onnx.data")


class OnnxruntimeBackend:
    """An inference session over model.onnx.

    Args:
        bundle: the folder with model.onnx.
        info: the bundle's description.
        threads: threads within an operator; None leaves the choice to onnxruntime.
        precision: only fp32; the graph has its own types.
    """

    name = "onnxruntime"

    def __init__(
        self, bundle: Path, info: BundleInfo, *, threads: int | None = None, precision: str = "fp32"
    ) -> None:
        if precision != "fp32":
            raise ConfigError(
                f"the onnxruntime backend cannot compute a graph in {precision}",
                hint="use fp32 or the torch backend",
            )
        check_files(bundle, info)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        try:
            self._session: Any = onnxruntime.InferenceSession(
                _graph(bundle / FILES[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            raise WeightsError(
                f"onnxruntime cannot load {bundle / FILES[0]}", hint="export the model again"
            ) from error
        _check_graph(self._session, bundle, info)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        output: NDArray[np.float32] = self._session.run(
            [OUTPUT], {INPUT: np.ascontiguousarray(images, dtype=np.float32)}
        )[0]
        return output


def check_files(bundle: Path, info: BundleInfo) -> None:
    """Compare the graph's files with the digests in config.json.

    Raises:
        WeightsError: a file has no digest, is missing or is damaged.
    """
    for name in FILES:
        wanted, path = info.digests.get(name), bundle / name
        if wanted is None and not path.is_file():
            continue
        if wanted is None:
            raise WeightsError(f"{bundle} gives no digest for {name}", hint="export the model again")
        if not path.is_file():
            raise WeightsError(f"{path} is missing", hint="export the model again")
        if sha256_file(path) != wanted:
            raise WeightsError(
                f"{path} is damaged: its digest is not the one in config.json",
                hint="copy or export the model again",
            )


def _check_graph(session: Any, bundle: Path, info: BundleInfo) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [value.name for value in inputs], [value.name for value in outputs]
    if names != ([INPUT], [OUTPUT]):
        raise WeightsError(
            f"{bundle / FILES[0]} is not a graph from images to logits",
            hint="export the model again with tesela export",
        )
    wanted = [info.image.channels, info.image.height, info.image.width]
    classes = outputs[0].shape[1] if info.num_classes else 0  # without classes any width is an embedding's
    if list(inputs[0].shape[1:]) != wanted or classes != info.num_classes:
        found = f"takes {inputs[0].shape[1:]} and gives {outputs[0].shape[1]} classes"
        raise WeightsError(
            f"{bundle / FILES[0]} {found}, config.json says {wanted} and {info.num_classes}",
            hint="export the model again",
        )


def _graph(path: Path) -> str | bytes:
    """The path; the file itself where the engine takes no path that is not UTF-8."""
    return str(path) if path_text(path) == path.as_posix() else path.read_bytes()
