"""Files of a TinyViT for timm."""

from __future__ import annotations

from typing import Any

from tesela.checkpoints.timm.stages_config import timm_stages_config
from tesela.checkpoints.tiny_vit.names import tiny_vit_table
from tesela.checkpoints.write import Exported
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors
from tesela.models.tiny_vit.config import TinyVitConfig

#: What timm's stem divides a side by.
_STEM = 4


def timm_tiny_vit(exported: Exported) -> tuple[dict[str, Any], Tensors]:
    """The config.json and tensors for timm.

    Raises:
        WeightsError: timm has no place for the model; the option is named.
    """
    config = exported.model.config
    assert isinstance(config, TinyVitConfig), "the caller asked for the family"
    if config.stem != _STEM:
        raise WeightsError(
            f"timm's TinyViT has no stem={config.stem}",
            hint=f"only models with stem={_STEM} fit; tesela export --to onnx takes any",
        )
    arguments = {
        "in_chans": config.channels,
        "embed_dims": list(config.widths),
        "depths": list(config.depths),
        "num_heads": [config.heads[0], *config.heads],  # the first stage has none and looks at none
        "window_sizes": [config.windows[0], *config.windows],
        "mlp_ratio": config.mlp_ratio,
    }
    written = timm_stages_config(
        exported, arguments, usual="tiny_vit_5m_224", first_conv="patch_embed.conv1.conv"
    )
    table = tiny_vit_table(config.heads, head=not exported.headless())
    return written, table.write(exported.written_tensors(), exported.carried)
