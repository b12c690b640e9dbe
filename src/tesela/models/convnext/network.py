"""ConvNeXt as a backbone; positions of its last map are the tokens, without attention."""

from __future__ import annotations

from torch import Tensor, nn

from tesela.layers.convolution.next_block import MapNorm, NextBlock, PatchConv
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.convnext.config import ConvNextConfig
from tesela.models.pyramid import block_groups


class NextStage(nn.Module):
    """(B, C, H, W) to (B, D, H', W'): a convolution of patches with its norm, then blocks.

    The first stage's norm stands behind the convolution, the others' before it.

    Args:
        config: the network's.
        stage: from 0.
    """

    def __init__(self, config: ConvNextConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        before, side = (config.widths[stage - 1], 2) if stage else (config.channels, config.stem)
        done, last = sum(config.depths[:stage]), max(1, sum(config.depths) - 1)
        self.is_stem = stage == 0
        self.patches = PatchConv(before, width, side)
        self.norm = MapNorm(width if self.is_stem else before, eps=config.norm_eps)
        self.blocks = nn.ModuleList(
            NextBlock(
                width,
                norm_eps=config.norm_eps,
                response_norm=config.response_norm,
                layer_scale=config.layer_scale,
                drop_path=config.drop_path * (done + index) / last,
            )
            for index in range(config.depths[stage])
        )

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The stage's map."""
        result: Tensor = images if self.is_stem else trace("norm", self.norm(images))
        result = trace("patches", self.patches(result))
        result = trace("norm", self.norm(result)) if self.is_stem else result
        for index, block in enumerate(self.blocks):
            result = trace(f"block{index:02d}", block(result))
        return result


class ConvNext(Backbone[ConvNextConfig]):
    """Images (B, C, H, W) to positions of the last feature map as tokens (B, n, D), with all stages' maps.

    Args:
        config: the network's configuration.
    """

    pyramid = channels_last = True

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(NextStage(config, stage) for stage in range(len(config.depths)))

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """The last feature map in raster order, and the map of each stage."""
        del first, taps
        maps, result = [], images
        for number, stage in enumerate(self.stages):
            result = stage(result, trace=trace.inside(f"stages.{number}"))
            maps.append(result)
        grid = result.shape[2], result.shape[3]
        return Features(tokens=result.flatten(2).transpose(1, 2), grid=grid, prefix=0, stages=tuple(maps))

    def make_pooled_norm(self) -> nn.Module:
        """The LayerNorm between mean and head."""
        return nn.LayerNorm(self.config.width, eps=self.config.pooled_norm_eps)

    def layer_groups(self) -> list[list[str]]:
        """Each block, the first of a stage with the convolution before it."""
        return block_groups((name for name, _ in self.named_parameters()), self.config.depths)
