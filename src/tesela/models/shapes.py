"""Tensor shapes and parameters at each step of a model, computed on the meta device.

Odd: a parameter belongs to the step with the longest name that begins its own name, ``blocks.3`` read as
``block03``; so the parameters in the table add up to all of the model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tesela.layers.trace import Trace
from tesela.models.config import ModelConfig
from tesela.models.factory import empty_model, empty_with_head
from tesela.models.model import Model, file_names
from tesela.models.segmenter.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """One row.

    Attributes:
        name: as in the trace.
        shape: of one image's tensor, batch first.
        parameters: used in this step.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int


def step_shapes(
    config: ModelConfig,
    *,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> list[StepShape]:
    """All steps of one image through the model, from the image to the logits.

    Args:
        config: the model.
        num_classes: K.
        image_size: (height, width); the config's own if None.
        decoder: settings of a segmenter's decoder; None for a classifier.

    Raises:
        ConfigError: the image does not fit the model.
    """
    model: Model = empty_model(config, num_classes=num_classes)
    if decoder:
        model = empty_with_head(
            config, lambda base: Segmenter(base, num_classes=num_classes, decoder=decoder)
        )
    trace = Trace()
    images = trace(
        "images", torch.empty(1, config.channels, *(image_size or config.image_size), device="meta")
    )
    with torch.no_grad():
        model(images, trace=trace)
    shapes = dict(_rows(trace))
    counts = _parameters(model, list(shapes))
    return [StepShape(name=name, shape=shape, parameters=counts[name]) for name, shape in shapes.items()]


def _rows(trace: Trace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Shapes of the traced tensors, and of each attention's joint q, k, v and its map."""
    waiting = dict(trace.attentions)
    for name, tensor in trace.tensors.items():
        for layer in [layer for layer in waiting if f"{layer}.".startswith(f"{name}.")]:
            record = waiting.pop(layer)
            batch, heads, queries, _ = record.q.shape
            if record.q.shape == record.k.shape:
                yield f"{layer}.qkv", (batch, 3, *record.q.shape[1:])
            yield f"{layer}.map", (batch, heads, queries, record.k.shape[2])
        yield name, tuple(tensor.shape)


def _parameters(model: Model, steps: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(steps, 0)
    for name, parameter in file_names(model, dict(model.named_parameters())).items():
        scoped = re.sub(r"\bblocks\.(\d+)", lambda found: f"block{int(found[1]):02d}", name)
        owner = max((step for step in steps if f"{scoped}.".startswith(f"{step}.")), key=len)
        counts[owner] += parameter.numel()
    return counts
