"""Models to evaluate: of a run or bundle, or an exported graph with the face of a module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tesela.checkpoints.open import bundle_at, open_model
from tesela.core.errors import UsageError
from tesela.models.bundle import WEIGHTS, BundleInfo, empty_bundle_model, load_bundle, read_info
from tesela.models.embedder import representation
from tesela.models.model import Model
from tesela.runtime.backends.base import FEATURES, Backend, choose_backend, open_backend

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

    def representation(self, images: Tensor) -> Tensor:
        """Features (B, D') of the graph, which gives them."""
        return torch.from_numpy(self._backend.output(FEATURES, images.float().numpy()))


def open_representing(path: Path | str, *, device: str) -> tuple[nn.Module, BundleInfo]:
    """A model whose features are read, and its description; a program's are computed on the CPU.

    Raises:
        UsageError: there is no such model, or a program without features.
    """
    bundle = bundle_at(path)
    if bundle is None or (bundle / WEIGHTS).is_file():
        return open_model(path, device=device, new_head=True)
    if FEATURES not in read_info(bundle).program.get("outputs", ()):
        raise UsageError(
            f"{path} is an exported graph, which gives outputs but no features",
            hint="name the run that it was exported from, or tesela export RUN --to onnx --with-features",
        )
    return open_evaluated(bundle, device="cpu")


def model_features(model: nn.Module, images: Tensor) -> Tensor:
    """Features (B, D') of images (B, C, H, W), of a model or a program."""
    if isinstance(model, BackendModel):
        return model.representation(images)
    assert isinstance(model, Model)
    return representation(model, images)


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
