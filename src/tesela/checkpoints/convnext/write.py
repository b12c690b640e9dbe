"""Files of a ConvNeXt for transformers and for timm.

Odd: transformers' norms have an epsilon of 1e-6, but for the last one; timm has one epsilon for all.
"""

from __future__ import annotations

from typing import Any

import torch

from tesela.checkpoints.certificate import FARTHEST
from tesela.checkpoints.convnext.names import timm_convnext_table, transformers_convnext_table
from tesela.checkpoints.convnext.stated import TIMM_STEMS
from tesela.checkpoints.huggingface.stages_config import transformers_stages_config
from tesela.checkpoints.timm.stages_config import timm_origin, timm_stages_config
from tesela.checkpoints.write import Exported
from tesela.core.errors import WeightsError
from tesela.models.convnext.config import ConvNextConfig
from tesela.models.tensors import Tensors

#: Stages of every ConvNeXt of timm, and the epsilon of transformers' norms.
_STAGES, _EPS = 4, 1e-6


def transformers_convnext(exported: Exported) -> tuple[str, dict[str, Any], Tensors]:
    """The class, config.json and tensors for transformers.

    Raises:
        WeightsError: transformers has no place for the model; the option is named.
    """
    config, head = _config(exported), not exported.headless()
    if config.norm_eps != _EPS:
        raise WeightsError(
            f"transformers' ConvNeXt has no norm_eps={config.norm_eps}",
            hint=f"only models with norm_eps={_EPS} fit; timm has a place for it: tesela export --to timm",
        )
    if config.response_norm and config.layer_scale:
        raise WeightsError(
            f"transformers' ConvNeXt has no layer_scale={config.layer_scale} beside response_norm",
            hint="only models with one of both fit; timm has a place for both: tesela export --to timm",
        )
    kind = "convnextv2" if config.response_norm else "convnext"
    name = f"ConvNext{'V2' if config.response_norm else ''}{'ForImageClassification' if head else 'Model'}"
    settings = {
        "model_type": kind,
        "patch_size": config.stem,
        "num_channels": config.channels,
        "num_stages": len(config.depths),
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "hidden_act": "gelu",
        "layer_norm_eps": config.pooled_norm_eps,
        "drop_path_rate": config.drop_path,
        **({} if config.response_norm else {"layer_scale_init_value": config.layer_scale}),
    }
    table = transformers_convnext_table(len(config.depths), f"{kind}." if head else "", head=head)
    written = transformers_stages_config(exported, name, settings)
    return name, written, table.write(exported.written_tensors(), exported.carried)


def timm_convnext(exported: Exported) -> tuple[dict[str, Any], Tensors, list[str]]:
    """The config.json and tensors for timm, and what is not quite the same there.

    Raises:
        WeightsError: timm has no place for the model; the option is named.
    """
    config = _config(exported)
    if len(config.depths) != _STAGES:
        raise WeightsError(
            f"timm's ConvNeXt has no {len(config.depths)} stages",
            hint=f"only models of {_STAGES} stages fit; transformers has any number: tesela export --to hf",
        )
    if config.stem not in TIMM_STEMS:
        raise WeightsError(
            f"timm's ConvNeXt with stem={config.stem} has other strides than the model",
            hint="only a stem of 1, 3, 4, 5, 6 or 7 fits; transformers has any: tesela export --to hf",
        )
    remarks = _last_norm_remarks(exported, config)
    convolutions = bool(timm_origin(exported).get("convolutions"))
    arguments = {
        "in_chans": config.channels,
        "depths": list(config.depths),
        "dims": list(config.widths),
        "patch_size": config.stem,
        "conv_mlp": convolutions,
        "use_grn": config.response_norm,
        "norm_eps": config.norm_eps,
    }
    usual = "convnext_tiny" if config.layer_scale else "convnextv2_tiny"  # with factors, and without
    written = timm_stages_config(exported, arguments, usual=usual, first_conv="stem.0")
    table = timm_convnext_table(_STAGES, convolutions=convolutions, head=not exported.headless())
    return written, table.write(exported.written_tensors(), exported.carried), remarks


def _last_norm_remarks(exported: Exported, config: ConvNextConfig) -> list[str]:
    """What timm's epsilon changes in the place of the last norm's own, measured on an image of noise.

    Raises:
        WeightsError: too much.
    """
    if config.pooled_norm_eps == config.norm_eps:
        return []
    model: Any = exported.model
    noise = torch.randn(1, config.channels, *config.image_size, generator=torch.Generator().manual_seed(0))
    error = 0.0
    for outputs in (model.pooled, model):
        with torch.inference_mode():
            wanted = outputs(noise)
            model.pooled_norm.eps = config.norm_eps
            found = outputs(noise)
            model.pooled_norm.eps = config.pooled_norm_eps
        largest = max(float(wanted.abs().max()), 1e-6)  # a classifier of zeros has no largest logit
        error = max(error, float((found - wanted).abs().max()) / largest)
    if not error <= FARTHEST:
        raise WeightsError(
            f"timm's ConvNeXt has no pooled_norm_eps={config.pooled_norm_eps} beside "
            f"norm_eps={config.norm_eps}, and with one for both, outputs change by {error:.1e} of the "
            "largest",
            hint="transformers has a place for it: tesela export --to hf",
        )
    return [
        f"timm computes the last norm with an epsilon of {config.norm_eps}, the model with "
        f"{config.pooled_norm_eps}: outputs of an image of noise change by {error:.1e} of the largest"
    ]


def _config(exported: Exported) -> ConvNextConfig:
    config = exported.model.config
    assert isinstance(config, ConvNextConfig), "the caller asked for the family"
    return config
