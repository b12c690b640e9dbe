"""Writer of timm's config.json for Swin, ConvNeXt, TinyViT and residual networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.timm.config import pretrained_cfg
from tesela.checkpoints.write import Exported


def timm_stages_config(
    exported: Exported,
    arguments: Mapping[str, Any],
    *,
    usual: str,
    first_conv: str,
    classifier: str = "head.fc",
    fixed: bool = False,
) -> dict[str, Any]:
    """The config.json; entries that came with the model from timm stay.

    Args:
        exported: the bundle.
        arguments: of the constructor, which turn the architecture into the model.
        usual: architecture of a model that is not from timm.
        first_conv: name of the module that the image goes into.
        classifier: name of the classifier's module.
        fixed: whether the image size is an argument of the class.

    Raises:
        WeightsError: the preprocessing has no place there.
    """
    base = dict(timm_origin(exported).get("config") or {})
    labels = [] if exported.headless() else exported.labels()
    return {
        **base,
        "architecture": base.get("architecture") or usual,
        "num_classes": len(labels),
        "num_features": exported.model.config.width,
        "global_pool": "avg",
        **({"label_names": labels} if labels else {}),
        "model_args": dict(base.get("model_args") or {}) | dict(arguments),
        "pretrained_cfg": pretrained_cfg(
            exported.info.image,
            classes=len(labels),
            license=exported.info.license,
            classifier=classifier,
            base=base,
            first_conv=first_conv,
            fixed=fixed,
        ),
    }


def timm_origin(exported: Exported) -> dict[str, Any]:
    """What the provenance says of the checkpoint of timm that a bundle is from; empty for another."""
    return exported.origin if exported.origin.get("format") == "timm" else {}
