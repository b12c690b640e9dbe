"""A bundle's model.safetensors in torch, on the CPU.

Odd: torch has one number of threads for the whole process, so ``threads`` sets it around each call. bf16
casts weights and images, not autocast: on a CPU the casts of autocast cost more than they save at small
batches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tesela.hardware.device import thread_count
from tesela.models.bundle import BundleInfo, load_bundle
from tesela.runtime.backends.base import Precision

ArrayFunction: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
RUNTIME_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchBackend:
    """The network itself, in evaluation mode.

    Args:
        bundle: the folder with model.safetensors.
        info: the bundle's description; taken because every backend is opened alike, the network reads its
            own.
        threads: threads for torch's operators; None leaves torch's own number.
        precision: of weights, images and arithmetic; logits are always float32.
    """

    name = "torch"

    def __init__(
        self,
        bundle: Path,
        info: BundleInfo,  # noqa: ARG002
        *,
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.model: torch.nn.Module = load_bundle(bundle)[0]
        self._logits = network_logits(self.model, threads=threads, precision=precision)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self._logits(images)


class LoadedBackend:
    """A model that is in memory already, on its own device; it is left in the mode it was in.

    Args:
        model: what computes.
    """

    name = "torch"

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        like = next(self.model.parameters())
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval()
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
                output: NDArray[np.float32] = self.model(batch.to(like)).float().cpu().numpy()
        finally:
            for module, training in modes:
                module.training = training
        return output


def network_logits(
    model: torch.nn.Module, *, threads: int | None = None, precision: Precision = "fp32"
) -> ArrayFunction:
    """Function from images to logits; ``model`` goes to evaluation mode and ``precision``."""
    kind = RUNTIME_DTYPES[precision]
    network = model.to(kind).eval()

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(kind)
        with torch.inference_mode(), thread_count(threads):
            output: NDArray[np.float32] = network(batch).float().numpy()
        return output

    return logits
