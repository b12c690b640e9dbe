"""A bundle's model.safetensors in torch, on the CPU.

Odd: torch has one number of threads for the whole process, so ``threads`` sets it around each call. bf16 casts weights and
images, not autocast: on a CPU the casts of autocast cost more than they save at small batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tesela.models.bundle import BundleInfo, load_bundle
from tesela.runtime.backends.base import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchBackend:
    """The network itself, in evaluation mode.

    Args:
        bundle: the folder with model.safetensors.
        info: the bundle's description.
        threads: threads for torch's operators; None leaves torch's own number.
        precision: of weights, images and arithmetic; logits are always float32.
    """

    name = "torch"

    def __init__(self, bundle: Path, info: BundleInfo, *, threads: int | None = None, precision: Precision = "fp32") -> None:
        model, _ = load_bundle(bundle)
        self.model: torch.nn.Module = model.to(DTYPES[precision]).eval()
        self._threads = threads
        self._dtype = DTYPES[precision]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(self._dtype)
        with torch.inference_mode(), thread_count(self._threads):
            output: NDArray[np.float32] = self.model(batch).float().numpy()
        return output


@contextlib.contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Compute with that many threads inside the block; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
