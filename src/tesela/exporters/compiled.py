"""Export of a model to compiled PyTorch: an AOTInductor package of native code.

It is made by a C++ compiler here, and needs PyTorch and a like processor where it runs. A package takes
and gives float32, whatever it computes in; its batch size is free, its image size the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tesela.core.errors import UsageError, WeightsError
from tesela.exporters.graph import silenced
from tesela.exporters.options import ExportOptions
from tesela.exporters.program import Export, ProgramFormat
from tesela.hardware.machine import compiler
from tesela.hardware.torch_private import package_ahead
from tesela.models.bundle import load_bundle
from tesela.runtime.backends.compiled import PACKAGE

#: Images that the tracer sees.
EXAMPLE = 5


def _check(options: ExportOptions) -> None:
    if options.precision not in ("fp32", "bf16"):
        raise UsageError(
            f"a compiled program has no {options.precision}",
            hint="use fp32 or bf16, or --to onnx",
        )
    if options.with_map:
        raise UsageError(
            "a compiled program has no maps: where it runs there is PyTorch, which explains the run itself",
            hint="leave --with-map away, or choose --to onnx",
        )
    if options.with_features:
        raise UsageError(
            "a compiled program has no features: where it runs there is PyTorch, which reads the run's own",
            hint="leave --with-features away, or choose --to onnx",
        )
    if compiler() is None:
        raise UsageError(
            "a program is compiled by a C++ compiler, and there is none here",
            hint="install g++ (apt-get install g++), or export a graph: --to onnx",
        )


def _write(job: Export) -> None:
    job.remarks.append("it runs on processors like this one, with the same version of PyTorch")
    _compile(job, job.folder / PACKAGE, bf16=job.options.precision == "bf16")


export_compiled = ProgramFormat(name="compiled", engine="compiled", check=_check, write=_write)


def _compile(job: Export, path: Path, *, bf16: bool) -> None:
    import torch
    from torch import Tensor, nn

    class InFloat32(nn.Module):
        """Images in float32 to outputs in float32, whatever lies between."""

        def __init__(self, model: Any, kind: torch.dtype) -> None:
            super().__init__()
            self.model, self.kind = model.to(kind), kind

        def forward(self, images: Tensor) -> Tensor:
            outputs: Tensor = self.model(images.to(self.kind)).float()
            return outputs

    model, info = load_bundle(job.bundle)
    network = InFloat32(model, torch.bfloat16 if bf16 else torch.float32).eval()
    example = torch.zeros(EXAMPLE, info.image.channels, *info.image.size)
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    try:
        with silenced(), torch.no_grad():
            program = torch.export.export(
                network,
                (example,),
                dynamic_shapes=shapes,
                strict=False,
            )
            package_ahead(program, path)
    except Exception as error:  # the compiler raises whatever it meets
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"this network cannot be compiled: {first}", hint="tesela export RUN --to onnx, or --to openvino"
        ) from error
