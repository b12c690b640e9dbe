"""Files of a Swin for transformers and for timm.

Both compute the same on maps that windows fill. On others they pad and shift each in its own way, so that a
model fits the one whose rule it has, or both where no map of its image size is padded.
"""

from __future__ import annotations

from typing import Any

from tesela.checkpoints.huggingface.stages_config import transformers_stages_config
from tesela.checkpoints.swin.names import swin_table
from tesela.checkpoints.timm.stages_config import timm_stages_config
from tesela.checkpoints.write import Exported
from tesela.core.errors import WeightsError
from tesela.layers.hierarchical.swin_plan import SwinWindows
from tesela.models.swin.config import SwinConfig
from tesela.models.swin.network import EDGE_EPS
from tesela.models.tensors import Tensors

#: The size whose architecture there is changed by arguments.
_BASE = "swin_tiny_patch4_window7_224"


def transformers_swin(exported: Exported) -> tuple[str, dict[str, Any], Tensors]:
    """The class, config.json and tensors for transformers.

    Raises:
        WeightsError: transformers has no place for the model; the option is named.
    """
    config = _config(exported)
    _check_edges(config, "transformers")
    _check_widths(config, "transformers")
    if len(set(config.windows)) > 1:
        raise WeightsError(
            f"transformers' Swin has no windows={config.windows}",
            hint="only windows of the same side in all stages fit",
        )
    for stage, grid in enumerate(config.grids()):
        if min(grid) < config.windows[stage]:
            raise WeightsError(
                f"transformers' Swin computes no map of {grid[0]}x{grid[1]} in windows of "
                f"{config.windows[stage]}",
                hint="only models whose images are large enough for their windows fit",
            )
    head = not exported.headless()
    name = "SwinForImageClassification" if head else "SwinModel"
    prefix = "swin." if head else ""
    settings = {
        "model_type": "swin",
        "patch_size": config.patch,
        "num_channels": config.channels,
        "embed_dim": config.widths[0],
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "window_size": config.windows[0],
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "drop_path_rate": config.drop_path,
        "layer_norm_eps": config.norm_eps,
        "use_absolute_embeddings": False,
    }
    written = transformers_stages_config(exported, name, settings)
    return name, written, _tensors(exported, "transformers", prefix, head=head)


def timm_swin(exported: Exported) -> tuple[dict[str, Any], Tensors]:
    """The config.json and tensors for timm.

    Raises:
        WeightsError: timm has no place for the model; the option is named.
    """
    config = _config(exported)
    _check_edges(config, "timm")
    _check_widths(config, "timm")
    for stage, grid in enumerate(config.grids()):
        if min(grid) < config.windows[stage]:
            raise WeightsError(
                f"timm's Swin would cut the tables of windows of {config.windows[stage]} to a map of "
                f"{grid[0]}x{grid[1]}",
                hint="only models whose images are large enough for their windows fit",
            )
    if config.norm_eps != EDGE_EPS:
        raise WeightsError(
            f"timm's Swin has no norm_eps={config.norm_eps}", hint=f"only models with {EDGE_EPS} fit"
        )
    arguments = {
        "img_size": list(config.image_size),
        "in_chans": config.channels,
        "patch_size": config.patch,
        "embed_dim": config.widths[0],
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "window_size": [[side, side] for side in config.windows],
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
    }
    written = timm_stages_config(exported, arguments, usual=_BASE, first_conv="patch_embed.proj", fixed=True)
    return written, _tensors(exported, "timm", "", head=not exported.headless())


def edge_remarks(exported: Exported, program: str) -> list[str]:
    """What is not the same there at other image sizes."""
    other = exported.model.config.edges != program
    return (
        [f"at image sizes whose maps windows do not fill, {program} pads and shifts otherwise than the model"]
        if other
        else []
    )


def _config(exported: Exported) -> SwinConfig:
    config = exported.model.config
    assert isinstance(config, SwinConfig), "the caller asked for the family"
    return config


def _check_widths(config: SwinConfig, program: str) -> None:
    if config.widths != tuple(config.widths[0] << stage for stage in range(len(config.widths))):
        raise WeightsError(
            f"{program}'s Swin has no widths={config.widths}",
            hint="only widths that double from stage to stage fit",
        )


def _check_edges(config: SwinConfig, program: str) -> None:
    """Refuse a model that the program would compute otherwise at the model's own image size."""
    for stage, grid in enumerate(config.grids()):
        own = config.plan(stage, 1)
        theirs = SwinWindows(own.window, shifted=True, edges=program)  # type: ignore[arg-type]
        if config.depths[stage] > 1 and not own.same(theirs, grid):
            raise WeightsError(
                f"{program} pads and shifts a map of {grid[0]}x{grid[1]} in windows of {own.window} "
                f"otherwise than edges={config.edges}",
                hint=f"only models with edges={program} fit, or whose maps are multiples of their windows",
            )


def _tensors(exported: Exported, program: Any, prefix: str, *, head: bool) -> Tensors:
    table = swin_table(program, len(exported.model.config.depths), prefix=prefix, head=head)
    return table.write(exported.written_tensors(), exported.carried)
