"""Small models of every vision configuration of transformers, for the sweep over weights.

A model type that is read becomes a small model in each of its classes; of every other the config.json
alone is written, which must be enough to refuse it.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


#: Classes of ConvNeXt, both versions, with their heads and bare.
CONVNEXTS = (
    "ConvNextForImageClassification",
    "ConvNextModel",
    "ConvNextV2ForImageClassification",
    "ConvNextV2Model",
)


def vision_types() -> list[str]:
    """Model types of transformers whose configuration speaks of images and their size."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        MODEL_MAPPING_NAMES,
    )

    found = {*MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, *MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES}
    for name in MODEL_MAPPING_NAMES:
        try:
            config = CONFIG_MAPPING[name]()
        except Exception:
            continue
        if any(hasattr(config, field) for field in ("image_size", "vision_config", "num_channels")):
            found.add(name)
    return sorted(found)


def transformers_models(only: str, shaken: Callable[[Any], Any]) -> Iterator[Any]:
    """Name, class, model or config, images, its outputs or None, and whether tokens are compared."""
    from tests.parity import backbone_models, huggingface_models
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    read = {"segformer", "resnet", "timm_wrapper"}  # hierarchical, no transformer, and timm's own folder
    for kind in ("SwinForImageClassification", "SwinModel"):
        read.add("swin")
        if fnmatch.fnmatch(kind.lower(), only):
            yield kind, kind, *_swin(kind, shaken)
    for kind in CONVNEXTS:
        read |= {"convnext", "convnextv2"}
        if fnmatch.fnmatch(kind.lower(), only):
            yield kind, kind, *_convnext(kind, shaken)
    for module, models in (
        (huggingface_models, huggingface_models.MODELS),
        (backbone_models, backbone_models.BACKBONE_MODELS),
    ):
        for name, (kind, _, _) in models.items():
            model: Any = shaken(module.make(name))
            read.add(model.config.model_type)
            if fnmatch.fnmatch(name, only):
                yield name, kind, model, *_computed(module, model)
    for name in vision_types():
        if name not in read and fnmatch.fnmatch(name, only):
            try:
                config: Any = CONFIG_MAPPING[name]()
            except Exception:
                continue
            yield name, type(config).__name__, config, None, None, False


def _swin(kind: str, shaken: Callable[[Any], Any]) -> tuple[Any, Any, Callable[[], Any], bool]:
    """A small Swin, images whose maps are padded at every step, what computes them, and whether as tokens."""
    import transformers

    sizes: dict[str, Any] = {"embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "image_size": 120}
    model: Any = shaken(getattr(transformers, kind)(transformers.SwinConfig(**sizes, num_labels=5)))
    images = torch.randn(1, 3, 120, 138, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def computed() -> Any:
        found = model.double()(images)
        return found.logits if kind != "SwinModel" else found.last_hidden_state

    return model, images, computed, kind == "SwinModel"


def _convnext(kind: str, shaken: Callable[[Any], Any]) -> tuple[Any, Any, Callable[[], Any], bool]:
    """A small ConvNeXt, images, what computes the outputs, and that they are not tokens."""
    import transformers

    sizes = {"depths": [2, 2, 6, 2], "hidden_sizes": [16, 32, 48, 64], "image_size": 96}
    config = getattr(transformers, "ConvNextV2Config" if "V2" in kind else "ConvNextConfig")
    model: Any = shaken(getattr(transformers, kind)(config(**sizes, num_labels=5)))
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def computed() -> Any:
        found = model.double()(images)
        return found.logits if kind.endswith("Classification") else found.pooler_output

    return model, images, computed, False


def _computed(module: Any, model: Any) -> tuple[Any, Callable[[], Any], bool]:
    """Images, what computes the outputs in float64, and whether these are tokens."""
    size = getattr(model.config, "vision_config", model.config).image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if hasattr(module, "outputs"):
        return images, lambda: module.outputs(model.double(), images), False
    bare = "For" not in type(model).__name__
    return images, lambda: module.result(model.double(), images), bare
