"""Interface and choice of inference backends.

A backend is opened on a bundle's folder and turns normalised images into logits. The table names modules by
text, so that a machine without torch can list the torch backend and say what would bring it.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import MissingExtraError, UnknownNameError, WeightsError
from tesela.models.bundle import BundleInfo

Precision = Literal["fp32", "bf16"]


class Backend(Protocol):
    """An engine that has a bundle loaded."""

    name: str

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendEntry:
    """Needs of a backend: a file in the bundle, a package, and the extra that installs it."""

    file: str
    package: str
    extra: str
    target: str


#: In the order of preference: onnxruntime starts in a tenth of torch's time and memory.
BACKENDS: dict[str, BackendEntry] = {
    "onnxruntime": BackendEntry(
        file="model.onnx",
        package="onnxruntime",
        extra="all",
        target="tesela.runtime.backends.onnxruntime:OnnxruntimeBackend",
    ),
    "torch": BackendEntry(
        file="model.safetensors",
        package="torch",
        extra="train",
        target="tesela.runtime.backends.torch:TorchBackend",
    ),
}


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def usable(bundle: Path) -> list[str]:
    """The backends that have their file in the bundle and their package on this machine, best first."""
    return [
        name
        for name, entry in BACKENDS.items()
        if (bundle / entry.file).is_file() and installed(entry.package)
    ]


def choose_backend(bundle: Path, name: str) -> str:
    """The backend to use; ``auto`` takes the first usable one.

    Raises:
        UnknownNameError: no such backend.
        WeightsError: the bundle lacks the file that the backend reads.
        MissingExtraError: the backend's package is not installed.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise UnknownNameError("backend", name, [*BACKENDS, "auto"])
        _require(bundle, name)
        return name
    found = usable(bundle)
    if found:
        return found[0]
    for candidate, entry in BACKENDS.items():
        if (bundle / entry.file).is_file():
            _require(bundle, candidate)
    raise WeightsError(
        f"{bundle} holds neither model.onnx nor model.safetensors",
        hint="train again, or export the model again",
    )


def open_backend(
    name: str, bundle: Path, info: BundleInfo, *, threads: int | None = None, precision: Precision = "fp32"
) -> Backend:
    """Import the backend's module and load the bundle into it."""
    module, _, attribute = BACKENDS[name].target.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    return cast(Backend, kind(bundle, info, threads=threads, precision=precision))


def _require(bundle: Path, name: str) -> None:
    entry = BACKENDS[name]
    if not (bundle / entry.file).is_file():
        other = (
            "tesela export RUN --to onnx"
            if name == "onnxruntime"
            else "give the run or bundle that training wrote"
        )
        raise WeightsError(f"{bundle} has no {entry.file}, which the {name} backend reads", hint=other)
    if not installed(entry.package):
        raise MissingExtraError(f"predicting from {entry.file}", entry.extra)
