"""A bundle's model.pt2, compiled ahead, or its weights, compiled here, in torch on the CPU.

A package is native code that was made by ``tesela export --to compiled``; it needs no compiler, only a
machine of the same kind. Weights are frozen into the program by torch.compile, which needs a C++ compiler and
up to a minute; PyTorch keeps what it made in its own cache. Odd: a package is run with the trust of a
program, for it is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.core.errors import UsageError, WeightsError
from tesela.hardware.machine import compiler
from tesela.hardware.torch_private import open_package
from tesela.models.bundle import WEIGHTS, BundleInfo, load_bundle
from tesela.runtime.backends.base import BundleBackend, Precision, check_files
from tesela.runtime.backends.torch import RUNTIME_DTYPES, array_function

PACKAGE = "model.pt2"


class CompiledBackend(BundleBackend):
    """A compiled network: a package, or weights that need a C++ compiler here."""

    name = "compiled"

    @property
    def packaged(self) -> bool:
        """Whether the bundle holds a package."""
        return self.path.name == PACKAGE

    def precisions(self, own: Precision) -> tuple[Precision, ...]:
        """A package's own; of weights fp32 and bf16."""
        return (own,) if self.packaged else ("fp32", "bf16")

    def _open(self, threads: int | None) -> None:
        # a package takes and gives float32, whatever it computes in
        kind = torch.float32 if self.packaged else RUNTIME_DTYPES[self.precision]
        network: Any = (
            load_package(self.path, self.info)
            if self.packaged
            else compile_weights(self.path.parent, self.info, kind)
        )
        self._logits = array_function(network, kind=kind, threads=threads)

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        """The logits (B, K) of normalised images (B, C, h, w)."""
        return self._logits(images)


def load_package(path: Path, info: BundleInfo) -> Any:
    """The function from images (B, C, h, w) to logits of a package, once its digest is the right one.

    Raises:
        WeightsError: it is damaged, or compiled for another machine.
    """
    check_files(path.parent, info, (path.name,))
    try:
        package: Any = open_package(path)
    except (RuntimeError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be loaded here: it was compiled for another machine or PyTorch",
            hint="export it on this machine, or for another format: tesela export RUN --to onnx",
        ) from error

    def compute(images: Tensor) -> Tensor:
        found: Any = package(images)
        logits: Tensor = found[0] if isinstance(found, (list, tuple)) else found
        return logits

    return compute


def compile_weights(bundle: Path, info: BundleInfo, kind: torch.dtype) -> nn.Module:
    """The network of a bundle, compiled with its weights as constants at the first call of each batch size.

    Raises:
        UsageError: there is no C++ compiler.
        WeightsError: the bundle is damaged.
    """
    if compiler() is None:
        raise UsageError(
            f"{bundle / WEIGHTS} cannot be compiled: there is no C++ compiler",
            hint="use the torch backend, or export where there is one: tesela export RUN --to compiled",
        )
    network = load_bundle(bundle, image_size=info.image.size)[0].to(kind).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    compiled: nn.Module = torch.compile(network, options={"freezing": True})  # type: ignore[assignment]
    return compiled
