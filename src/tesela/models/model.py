"""Models: a backbone and what reads its tokens.

In memory a backbone's parameters begin with ``backbone.``. Files (bundles, checkpoints, tables of other
programs' names) hold them without, so that a backbone has the same names whatever sits on it: ``file_names``
and ``load_names``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Generator, Tensor, nn

from tesela.layers.attention.kernels import HasKernel
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features

_T = TypeVar("_T")
_BACKBONE = "backbone."


class StateTensors(OrderedDict[str, Any]):
    """Tensors of a model by their names in memory, found under their names in files too.

    Pickled it is a plain OrderedDict, so that any program can read it.
    """

    def __missing__(self, name: str) -> Any:
        if not name.startswith(_BACKBONE) and _BACKBONE + name in self:
            return self[_BACKBONE + name]
        raise KeyError(name)

    def __reduce__(self) -> Any:
        parts: Any = super().__reduce__()
        return (OrderedDict, *parts[1:])


class Model(HasKernel, ABC, nn.Module):
    """Images (B, C, H, W), float32 and normalised, to what a task is about.

    Args:
        backbone: turns images into tokens.
        num_classes: K, the number of outputs, in whatever form.

    Attributes:
        kind: name under which the class is registered as a model head.
        head: turns what it reads of the tokens into outputs; its parameters are ``head.*``.
        info: the bundle it was loaded from, or None.
        options: further keyword arguments that the class was made with, plain values.
    """

    kind: ClassVar[str]
    #: Whether what reads the tokens needs all patches of the grid.
    whole_grid: ClassVar[bool] = False
    head: nn.Module

    def __init__(self, backbone: Backbone[Any], *, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.info: Any = None
        self.options: dict[str, Any] = {}
        self.backbone = backbone

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module; a backbone's tensor is found without ``backbone.`` before its name too."""
        found = super().state_dict(*args, **kwargs)
        if args or kwargs.get("destination") is not None:
            return found
        named = StateTensors(found)
        named._metadata = getattr(found, "_metadata", None)  # type: ignore[attr-defined]
        return named

    @abstractmethod
    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Outputs of images (B, C, H, W)."""

    @abstractmethod
    def make_head(self, num_classes: int) -> nn.Module:
        """A head like the model's own for ``num_classes``, its weights not yet drawn."""

    @abstractmethod
    def reset_head(self, num_classes: int) -> None:
        """Replace the head by one of ``num_classes`` that starts at zero."""

    def take_classes(self, places: Sequence[int | None], generator: Generator | None = None) -> None:
        """Make the head one of other classes; each may keep what the old head knew of one of its own.

        Args:
            places: for each new class the number of the old one that it is; None for one that starts as in a
                new head.
            generator: of the weights of those.
        """
        with torch.device("meta"):
            wider = self.make_head(self.num_classes + 1).state_dict()
        old, kept = self.head.state_dict(), [index for index, place in enumerate(places) if place is not None]
        like = next(self.head.parameters())
        head = self.make_head(len(places)).to(device=like.device, dtype=like.dtype).train(self.head.training)
        initialise(head, generator)
        for name, tensor in head.state_dict().items():
            rows = wider[name].shape[0] - old[name].shape[0] if tensor.ndim else 0
            if not rows:
                tensor.copy_(old[name])
                continue
            # (rows of a class, K, ...): a class is the faster axis where it has several rows
            before, after = (one.unflatten(0, (rows, -1)) for one in (old[name], tensor))
            after[:, kept] = before[:, [place for place in places if place is not None]]
        self.head, self.num_classes = head, len(places)

    @property
    def config(self) -> Any:
        """The backbone's configuration."""
        return self.backbone.config

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.backbone.prefix_tokens

    @property
    def pre_norm(self) -> bool:
        """Whether the blocks normalise tokens before their branches."""
        return self.backbone.pre_norm

    def initialise(self, generator: Generator | None = None) -> None:
        """Initialise all weights."""
        initialise(self, generator)

    def initialise_head(self, generator: Generator | None = None) -> None:
        """Initialise all weights but the backbone's."""
        for name, module in self.named_children():
            if name != "backbone":
                initialise(module, generator)

    def features(self, images: Tensor, *, trace: Trace = OFF) -> Features:
        """The backbone's tokens of images (B, C, H, W)."""
        found: Features = self.backbone(images, trace=trace)
        return found

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of patch tokens of an image of (height, width)."""
        return self.backbone.grid(image_size)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make (height, width) the model's own, as for fine-tuning at higher resolution (section 3.2).

        Raises:
            ConfigError: the image does not fit.
        """
        self.backbone.set_image_size(image_size)

    def head_names(self) -> set[str]:
        """Names of the head's parameters."""
        return {f"head.{name}" for name, _ in self.head.named_parameters()}

    def no_decay(self) -> set[str]:
        """Names of parameters without weight decay.

        All but matrices and convolutions, and what the backbone names.
        """
        own = {name for name, parameter in self._above() if parameter.ndim != 2}
        return own | {_BACKBONE + name for name in self.backbone.no_decay()}

    def layer_groups(self) -> list[list[str]]:
        """All parameter names once, in groups from input to output.

        What reads the tokens is in the last group.
        """
        groups = [[_BACKBONE + name for name in group] for group in self.backbone.layer_groups()]
        groups[-1] += [name for name, _ in self._above()]
        return groups

    def _above(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, one) for name, one in self.named_parameters() if not name.startswith(_BACKBONE)]


def file_names(model: nn.Module, tensors: Mapping[str, _T]) -> dict[str, _T]:
    """``tensors``, named as in memory, under the names they have in files."""
    if not isinstance(model, Model):
        return dict(tensors)
    return {name.removeprefix(_BACKBONE): tensor for name, tensor in tensors.items()}


def load_names(model: nn.Module, tensors: Mapping[str, _T]) -> dict[str, _T]:
    """``tensors``, named as in files, under the names they have in memory."""
    if not isinstance(model, Model):
        return dict(tensors)
    above = {name.split(".")[0] for name in model.state_dict()} - {"backbone"}
    return {
        name if name.split(".")[0] in above else _BACKBONE + name: tensor for name, tensor in tensors.items()
    }
