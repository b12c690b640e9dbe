"""Export of a model to OpenVINO's own format, from the same graph as ONNX.

fp32 keeps every weight; bf16 stores weights in half precision and lets the engine compute in bf16; int8 and
int8 weights come from the quantised ONNX graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tesela.core.errors import MissingExtraError
from tesela.core.packages import installed
from tesela.exporters.contract import ProgramRow
from tesela.exporters.onnx import GRAPH, check_graph_outputs, write_quantised_or_fp32
from tesela.exporters.options import ExportOptions
from tesela.exporters.program import Export, ProgramFormat
from tesela.hardware.openvino_core import openvino_core
from tesela.models.bundle import write_info
from tesela.runtime.backends.base import open_backend
from tesela.runtime.backends.graph import ONNX_FILES

XML = "openvino.xml"


def _check(options: ExportOptions) -> None:  # noqa: ARG001
    if not installed("openvino"):
        raise MissingExtraError("exporting to OpenVINO", "openvino")


def _write(job: Export) -> None:
    with tempfile.TemporaryDirectory(prefix="tesela-") as place:
        graphs = Path(place)
        fp32 = write_quantised_or_fp32(job, graphs)
        _convert(graphs / GRAPH, job.folder / XML, half=job.options.precision == "bf16")
        if job.options.precision == "fp32":
            info = job.described(job.folder, precision="fp32")
            check_graph_outputs(job, open_backend("openvino", job.folder, info))
        if job.options.precision not in ("int8", "bf16"):
            return
        _convert(fp32, graphs / XML, half=False)
        for name in ONNX_FILES:
            (graphs / name).unlink(missing_ok=True)
        info = job.described(graphs, precision="fp32")
        write_info(graphs, info)
        for precision in ("fp32", "bf16") if job.options.precision == "int8" else ("fp32",):
            compute = open_backend("openvino", graphs, info, precision=precision).logits
            job.others.append((ProgramRow(name=f"openvino {precision}"), compute))


export_openvino = ProgramFormat(name="openvino", engine="openvino", check=_check, write=_write)


def _convert(graph: Path, path: Path, *, half: bool) -> None:
    import openvino

    model: Any = openvino_core().read_model(graph)
    openvino.save_model(model, path, compress_to_fp16=half)
