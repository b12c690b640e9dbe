"""Models to evaluate: of a run or bundle, or an exported graph with the face of a module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.models.bundle import WEIGHTS, BundleInfo, empty_bundle_model, load_bundle, read_info
from tesela.models.model import Model
from tesela.runtime.backends.base import Backend, choose_backend, open_backend

if TYPE_CHECKING:
    from tesela.layers.grid import Grid


class BackendModel(nn.Module):
    """A graph of another engine as a module from normalised images (B, C, H, W) to outputs, on the CPU.

    Args:
        backend: the engine.
        shape: the network that the graph was made of, on the meta device: without values.
    """

    def __init__(self, backend: Backend, shape: Model) -> None:
        super().__init__()
        self._backend, self._shape = backend, (shape,)  # in a tuple, so that it is no part of this module

    @property
    def network(self) -> Model:
        """The network, without values."""
        return self._shape[0]

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """As ``Model.grid``."""
        return self.network.grid(image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of the graph."""
        return torch.from_numpy(self._backend.logits(images.float().numpy()))


def open_evaluated(bundle: Path, *, device: str, backend: str = "auto") -> tuple[nn.Module, BundleInfo]:
    """What is evaluated, and its description.

    Args:
        bundle: a bundle folder; one without weights has an exported graph.
        device: for torch.
        backend: auto takes torch where there are weights.

    Raises:
        UsageError: the backend cannot use the device.
        WeightsError: the bundle is damaged, or lacks what the backend reads.
    """
    if backend == "torch" or (backend == "auto" and (bundle / WEIGHTS).is_file()):
        return load_bundle(bundle, device=device)
    if device != "cpu":
        raise UsageError("an exported graph is evaluated on the CPU", hint="use --device cpu")
    info = read_info(bundle)
    engine = open_backend(choose_backend(bundle, backend), bundle, info, threads=None)
    return BackendModel(engine, empty_bundle_model(info)), info


def parameter_count(model: nn.Module) -> int:
    """Weights of the network."""
    network: Any = model.network if isinstance(model, BackendModel) else model
    return sum(parameter.numel() for parameter in network.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Where images have to be."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
