"""Names of the tensors of plain residual networks in transformers, timm and torchvision."""

from __future__ import annotations

from collections.abc import Iterable

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule, layer

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def timm_resnet_table(stages: int, convolutions: int, *, head: bool) -> TensorTable:
    """The names of timm and torchvision.

    Args:
        stages: how many.
        convolutions: of a unit: 2 of a basic one, 3 of a bottleneck.
        head: whether there is a classifier.
    """
    rules = [*_folded("backbone.root.conv", "backbone.root.norm", "conv1", "bn1")]
    for stage in range(stages):
        own, theirs = f"backbone.stages.{stage}.{{i}}.", f"layer{stage + 1}.{{i}}."
        for number in range(1, convolutions + 1):
            rules += _folded(
                f"{own}conv{number}", f"{own}norm{number}", f"{theirs}conv{number}", f"{theirs}bn{number}"
            )
        rules += _folded(
            f"{own}projection", f"{own}projection_norm", f"{theirs}downsample.0", f"{theirs}downsample.1"
        )
    rules += layer("head.linear", "fc") if head else ()
    return TensorTable(program="timm", rules=tuple(rules), unused=(), fold=None)


def transformers_resnet_table(
    stages: int, convolutions: int, *, head: bool, prefix: str = "resnet."
) -> TensorTable:
    """The names of transformers' ``ResNetForImageClassification``; arguments as of timm's.

    Args:
        stages: how many.
        convolutions: of a unit.
        head: whether there is a classifier.
        prefix: of the body's names; nothing where the body is alone.
    """
    body = f"{prefix}embedder.embedder."
    rules = [
        *_folded("backbone.root.conv", "backbone.root.norm", f"{body}convolution", f"{body}normalization")
    ]
    for stage in range(stages):
        own = f"backbone.stages.{stage}.{{i}}."
        theirs = f"{prefix}encoder.stages.{stage}.layers.{{i}}."
        for number in range(convolutions):
            place = f"{theirs}layer.{number}."
            rules += _folded(
                f"{own}conv{number + 1}",
                f"{own}norm{number + 1}",
                f"{place}convolution",
                f"{place}normalization",
            )
        place = f"{theirs}shortcut."
        rules += _folded(
            f"{own}projection", f"{own}projection_norm", f"{place}convolution", f"{place}normalization"
        )
    rules += layer("head.linear", "classifier.1") if head else ()
    return TensorTable(program="transformers", rules=tuple(rules), unused=(), fold=None)


def _folded(own: str, own_norm: str, theirs: str, their_norm: str) -> Iterable[Rule]:
    """The rules of a convolution without a bias, and of the batch norm behind it."""
    yield Rule(own=f"{own}.weight", foreign=(f"{theirs}.weight",))
    for part in _NORM:
        yield Rule(own=f"{own_norm}.{part}", foreign=(f"{their_norm}.{part}",))
