"""Interface and choice of inference backends.

A backend is opened on a bundle's folder and turns normalised images into logits. The table names modules by
text, so that a machine without torch can list the torch backend and say what would bring it.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ConfigError, MissingExtraError, UnknownNameError, WeightsError
from tesela.core.files import sha256_file
from tesela.core.packages import installed
from tesela.hardware.allocator import keep_freed_memory
from tesela.models.bundle import BundleInfo

Precision = Literal["fp32", "bf16", "int8", "int8-weights"]
#: Names of outputs: what every backend gives, and what the head reads.
LOGITS, FEATURES = "logits", "features"


class Backend(Protocol):
    """An engine that has a bundle loaded.

    Attributes:
        precision: what it computes in.
        outputs: names of what it gives, ``logits`` and perhaps others.
    """

    name: str
    precision: Precision
    outputs: tuple[str, ...]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""


class BundleBackend:
    """A backend over a file of a bundle.

    Args:
        bundle: the folder.
        info: the bundle's description; its image size may be another than the network's own.
        threads: threads per operator; None leaves the engine's own choice.
        precision: of the arithmetic; the first of ``precisions`` if None.

    Raises:
        ConfigError: the file cannot be computed in that precision.
        WeightsError: the file is missing, damaged, or does not fit its bundle.
    """

    name: str
    outputs: tuple[str, ...] = (LOGITS,)

    def __init__(
        self,
        bundle: Path,
        info: BundleInfo,
        *,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.path, self.info = _file(bundle, self.name), info
        able = self.precisions(own_precision(info))
        self.precision: Precision = precision or able[0]
        if self.precision not in able:
            raise ConfigError(
                f"the {self.name} backend cannot compute {self.path} in {self.precision}",
                hint=f"use {' or '.join(able)}, or another backend",
            )
        self._open(threads)

    @abstractmethod
    def precisions(self, own: Precision) -> tuple[Precision, ...]:
        """What a program whose own precision is ``own`` can be computed in, the usual first."""

    @abstractmethod
    def _open(self, threads: int | None) -> None:
        """Load the file."""

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self.output(LOGITS, images)

    @abstractmethod
    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """One of ``outputs`` of normalised images (B, C, h, w)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendEntry:
    """Needs of a backend: one of some files in the bundle, a package, and the extra that installs it."""

    files: tuple[str, ...]
    package: str
    extra: str
    target: str
    source: str

    def file(self, bundle: Path) -> Path | None:
        """The file that it would read; None where the bundle has none."""
        return next((bundle / name for name in self.files if (bundle / name).is_file()), None)


#: In the order of preference: onnxruntime starts in a tenth of torch's time and memory.
BACKENDS: dict[str, BackendEntry] = {
    "onnxruntime": BackendEntry(
        files=("model.onnx",),
        package="onnxruntime",
        extra="all",
        target="tesela.runtime.backends.onnxruntime:OnnxruntimeBackend",
        source="tesela export RUN --to onnx",
    ),
    "openvino": BackendEntry(
        files=("openvino.xml", "model.onnx"),
        package="openvino",
        extra="openvino",
        target="tesela.runtime.backends.openvino:OpenvinoBackend",
        source="tesela export RUN --to onnx",
    ),
    "torch": BackendEntry(
        files=("model.safetensors",),
        package="torch",
        extra="train",
        target="tesela.runtime.backends.torch:TorchBackend",
        source="give the run or bundle that training wrote",
    ),
    "compiled": BackendEntry(
        files=("model.pt2", "model.safetensors"),
        package="torch",
        extra="train",
        target="tesela.runtime.backends.compiled:CompiledBackend",
        source="give the run or bundle that training wrote",
    ),
}


def usable(bundle: Path) -> list[str]:
    """The backends that have a file in the bundle and their package on this machine, best first."""
    return [name for name, entry in BACKENDS.items() if entry.file(bundle) and installed(entry.package)]


def choose_backend(bundle: Path, name: str) -> str:
    """The backend to use; ``auto`` takes the first usable one, unmeasured.

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
        if entry.file(bundle):
            _require(bundle, candidate)
    raise WeightsError(
        f"{bundle} holds neither weights (model.safetensors) nor an exported program",
        hint="train again, or export the model again",
    )


def open_backend(
    name: str,
    bundle: Path,
    info: BundleInfo,
    *,
    threads: int | None = None,
    precision: Precision | None = None,
) -> Backend:
    """Import the backend's module and load the bundle into it.

    Args:
        name: a name of ``BACKENDS``.
        bundle: the folder.
        info: its description.
        threads: threads per operator; None leaves the backend's own choice.
        precision: of the arithmetic; the program's own if None, fp32 for weights.

    Raises:
        WeightsError: a file is damaged or does not fit.
        ConfigError: the backend does not compute in that precision.
    """
    if BACKENDS[name].package == "torch":
        keep_freed_memory()  # before torch is imported: pages cleared anew cost a third of a batch
    module, _, attribute = BACKENDS[name].target.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    return cast(Backend, kind(bundle, info, threads=threads, precision=precision))


def own_precision(info: BundleInfo) -> Precision:
    """The number format of a bundle's program; fp32 for weights, and for programs that do not say."""
    return cast(Precision, info.program.get("precision", "fp32"))


def check_files(bundle: Path, info: BundleInfo, names: tuple[str, ...]) -> None:
    """Compare a program's files with the digests in config.json.

    Raises:
        WeightsError: a file has no digest, is missing or is damaged.
    """
    for name in names:
        wanted, path = info.digests.get(name), bundle / name
        if wanted is None and not path.is_file():
            continue
        if wanted is None:
            raise WeightsError(f"{bundle} gives no digest for {name}", hint="export the model again")
        if not path.is_file():
            raise WeightsError(
                f"{path} is missing", hint="copy the whole folder again, or export the model again"
            )
        if sha256_file(path) != wanted:
            raise WeightsError(
                f"{path} is damaged: its digest is not the one in config.json",
                hint="copy or export the model again",
            )


def _file(bundle: Path, name: str) -> Path:
    """The file that a backend reads."""
    entry = BACKENDS[name]
    file = entry.file(bundle)
    if file is None:
        wanted = " or ".join(entry.files)
        raise WeightsError(f"{bundle} has no {wanted}, which the {name} backend reads", hint=entry.source)
    return file


def _require(bundle: Path, name: str) -> None:
    entry, file = BACKENDS[name], _file(bundle, name)
    if not installed(entry.package):
        raise MissingExtraError(f"predicting from {file.name} with {entry.package}", entry.extra)
