"""A bundle's model.safetensors in torch, on the CPU.

Odd: torch has one number of threads for the whole process, so ``threads`` sets it around each call. bf16
casts weights and images, not autocast: on a CPU the casts of autocast cost more than they save at small
batches. Its dense layers are packed for oneDNN, so that the computing network is no longer the one that
explains; ``model`` is, in fp32. Attention is PyTorch's fused kernel, which won at every size that was
measured without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tesela.hardware.device import thread_count
from tesela.models.bundle import load_bundle
from tesela.models.embedder import representation
from tesela.models.encoder.merged import MergedClassifier
from tesela.runtime.backends.base import FEATURES, LOGITS, BundleBackend, Precision
from tesela.runtime.backends.packed import pack_dense

ArrayFunction: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
RUNTIME_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: Rows that the packed weights are made for: the tokens of a few images.
USUAL_ROWS = 1024


class TorchBackend(BundleBackend):
    """The network itself, in evaluation mode; bf16 is of weights, images and arithmetic, not of outputs."""

    name = "torch"
    outputs: tuple[str, ...] = (LOGITS, FEATURES)

    def precisions(self, own: Precision) -> tuple[Precision, ...]:  # noqa: ARG002
        """What torch computes well on a CPU."""
        return ("fp32", "bf16")

    def _open(self, threads: int | None) -> None:
        network = self._network()
        if self.precision == "fp32":
            self.model = network
        self._threads, self._computing = threads, network
        self._logits = network_logits(network, threads=threads, precision=self.precision)
        kind, features = RUNTIME_DTYPES[self.precision], partial(representation, network)
        self._features = array_function(features, kind=kind, threads=threads)

    def _network(self) -> Any:
        network: Any = load_bundle(self.path.parent, image_size=self.info.image.size)[0]
        return network

    @cached_property
    def model(self) -> nn.Module:
        """The network in fp32, for who looks inside; read when it is first asked for."""
        found: nn.Module = self._network()
        return found

    def merge_tokens(self, count: int) -> None:
        """Compute with so many tokens fewer in each block from now on; it gives logits alone then.

        Raises:
            UsageError: tokens of the model cannot be merged.
        """
        merged = MergedClassifier(self._computing, count)
        kind = RUNTIME_DTYPES[self.precision]
        self._logits = array_function(merged, kind=kind, threads=self._threads)
        self.model, self.outputs = merged, (LOGITS,)

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) or features (B, D') of normalised images (B, C, h, w)."""
        return self._features(images) if name == FEATURES else self._logits(images)


class LoadedBackend:
    """A model that is in memory already, on its own device; it is left in the mode it was in.

    Args:
        model: what computes.
    """

    name = "torch"
    precision: Precision = "fp32"
    outputs: tuple[str, ...] = (LOGITS, FEATURES)

    def __init__(self, model: Any) -> None:
        self.model = model

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self.output(LOGITS, images)

    def output(self, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) or features (B, D') of normalised images (B, C, h, w)."""
        compute = partial(representation, self.model) if name == FEATURES else self.model
        like = next(self.model.parameters())
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval()
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
                output: NDArray[np.float32] = compute(batch.to(like)).float().cpu().numpy()
        finally:
            for module, training in modes:
                module.training = training
        return output


def network_logits(
    model: nn.Module, *, threads: int | None = None, precision: Precision = "fp32"
) -> ArrayFunction:
    """Function from images to logits; ``model`` goes to evaluation mode and ``precision``, for good."""
    kind = RUNTIME_DTYPES[precision]
    network = model.to(kind).eval()
    if precision == "bf16":
        pack_dense(network, rows=USUAL_ROWS)
    return array_function(network, kind=kind, threads=threads)


def array_function(
    network: Callable[..., torch.Tensor], *, kind: torch.dtype, threads: int | None
) -> ArrayFunction:
    """Function from images (B, C, h, w) to outputs, both float32 arrays, through a network on tensors."""

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(kind)
        with torch.inference_mode(), thread_count(threads):
            output: NDArray[np.float32] = network(batch).float().numpy()
        return output

    return logits
