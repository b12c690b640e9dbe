"""Writer of transformers' config.json for Swin, ConvNeXt and residual networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.write import Exported

_LABELS = ("id2label", "label2id", "num_labels")


def transformers_stages_config(exported: Exported, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json; entries that came with the model from transformers stay.

    Args:
        exported: the bundle.
        name: of the class.
        settings: of its configuration, which make it the model, but for image size and labels.
    """
    origin = exported.origin if exported.origin.get("format") == "huggingface" else {}
    base, (height, width) = dict(origin.get("config") or {}), exported.model.config.image_size
    written = {
        **base,
        "architectures": [name],
        "image_size": height if height == width else [height, width],
        **settings,
    }
    if exported.headless():
        return written
    labels = exported.labels()
    return {key: value for key, value in written.items() if key not in _LABELS} | {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
