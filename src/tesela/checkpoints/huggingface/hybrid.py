"""Hugging Face's ViT hybrids: a BiT network before a Vision Transformer.

Odd: transformers has them up to version 4.40 and its BiT networks still, so their files are read, and not
written. The table of positions belongs to ``backbone_featmap_shape``, which has to be that of ``image_size``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tesela.checkpoints.rules import Rule, layer
from tesela.core.errors import WeightsError

#: A hybrid's residual network where its config.json names none, and a BiT network's settings where it names
#: none of these.
_USUAL = {
    "global_padding": "same",
    "layer_type": "bottleneck",
    "depths": [3, 4, 9],
    "embedding_dynamic_padding": True,
}
_BIT: dict[str, Any] = {
    "model_type": "bit",
    "layer_type": "preactivation",
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "hidden_act": "relu",
    "output_stride": 32,
    "width_factor": 1,
    "num_channels": 3,
}
#: What is computed here; text in any case.
_FIXED: dict[str, Any] = {
    "model_type": "bit",
    "layer_type": "bottleneck",
    "global_padding": "same",
    "embedding_dynamic_padding": True,
    "hidden_act": "relu",
    "output_stride": 32,
    "width_factor": 1,
}
#: Width of the published roots, and how many times that the first stage has.
_BASE, _FIRST = 64, 4


def bit_fields(config: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Fields of the residual network.

    Args:
        config: config.json of a ViT hybrid.
        image_size: (height, width) that it states.

    Raises:
        WeightsError: it is another residual network than is computed here, or does not make sense.
    """
    for name in ("backbone", "use_timm_backbone", "use_pretrained_backbone"):
        if config.get(name):
            raise _refused(name, config[name])
    given = config.get("backbone_config") or _USUAL
    if not isinstance(given, Mapping):
        raise _refused("backbone_config", given)
    bit = {**_BIT, **given}
    for name, wanted in _FIXED.items():
        value = bit[name]
        if (value.lower() if isinstance(value, str) else value) != wanted:
            raise _refused(f"backbone_config.{name}", value)
    stages = tuple(int(count) for count in bit.get("depths", (3, 4, 6, 3)))
    root = int(bit.get("embedding_size", _BASE))
    widths = [int(width) for width in bit.get("hidden_sizes", (256, 512, 1024, 2048))][: len(stages)]
    if not 0 < len(stages) <= 4 or widths != [_FIRST * root << stage for stage in range(len(stages))]:
        raise _refused("backbone_config.hidden_sizes", bit.get("hidden_sizes", widths))
    last = bit.get("out_features") or [f"stage{len(stages)}"]
    if last[-1] != f"stage{len(stages)}":
        raise _refused("backbone_config.out_features", last)
    places = bit.get("out_indices") or [len(stages)]
    if places[-1] not in (len(stages), -1):
        raise _refused("backbone_config.out_indices", places)
    if bit["num_channels"] != config.get("num_channels", 3):
        raise _refused("backbone_config.num_channels", bit["num_channels"])
    step = 4 << (len(stages) - 1)
    shape = [int(side) for side in config.get("backbone_featmap_shape") or (1, 1024, 24, 24)]
    if shape[1:] != [widths[-1], *(-(-side // step) for side in image_size)]:
        raise _refused("backbone_featmap_shape", shape, beside=f" beside image_size={image_size}")
    return {
        "stages": stages,
        "width_factor": root / _BASE,
        "root": "large",
        "norm_groups": int(bit.get("num_groups", 32)),
        "arithmetic": "timm",
    }


def bit_rules(embeddings: str, stages: int) -> Iterable[Rule]:
    """The names of a residual network of so many stages, below ``embeddings``."""
    place = f"{embeddings}patch_embeddings.backbone.bit."
    yield from layer("patches.projection", f"{embeddings}patch_embeddings.projection")
    yield Rule(own="patches.backbone.root.conv.weight", foreign=(f"{place}embedder.convolution.weight",))
    yield from layer("patches.backbone.root.norm", f"{place}embedder.norm")
    for stage in range(stages):
        own = f"patches.backbone.stages.{stage}.{{i}}."
        theirs = f"{place}encoder.stages.{stage}.layers.{{i}}."
        for number in (1, 2, 3):
            yield Rule(own=f"{own}conv{number}.weight", foreign=(f"{theirs}conv{number}.weight",))
            yield from layer(f"{own}norm{number}", f"{theirs}norm{number}")
        yield Rule(own=f"{own}projection.weight", foreign=(f"{theirs}downsample.conv.weight",))
        yield from layer(f"{own}projection_norm", f"{theirs}downsample.norm")


def _refused(name: str, value: Any, *, beside: str = "") -> WeightsError:
    return WeightsError(
        f"the hybrid's {name}={value!r}{beside} in config.json is not computed here",
        hint="hybrids such as ViT-B on BiT-50 with bottleneck layers and padding 'same' are",
    )
