"""SegFormer's encoder (arXiv 2105.15203): stages of tokens on ever coarser grids."""

from __future__ import annotations

from torch import Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.hierarchical.block import MixMlp, ReducedBlock
from tesela.layers.hierarchical.overlap_patch import OverlapPatchEmbedding, on_grid
from tesela.layers.hierarchical.reduced_attention import ReducedAttention
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.segformer.config import SegformerConfig


class SegformerStage(nn.Module):
    """(B, C, H, W) to tokens (B, n, D) and their grid: patches, blocks, norm.

    Args:
        config: the network's.
        stage: from 0.
    """

    def __init__(self, config: SegformerConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        done, last = sum(config.depths[:stage]), max(1, sum(config.depths) - 1)
        self.patches = OverlapPatchEmbedding(
            config.widths[stage - 1] if stage else config.channels,
            width,
            kernel=config.kernels[stage],
            stride=config.strides[stage],
            norm_eps=config.norm_eps,
        )
        self.blocks = nn.ModuleList(
            ReducedBlock(
                ReducedAttention(
                    width,
                    config.heads[stage],
                    reduction=config.reductions[stage],
                    norm_eps=config.norm_eps,
                    dropout=config.dropout,
                    attention_dropout=config.attention_dropout,
                ),
                MixMlp(width, config.hidden(stage), dropout=config.dropout),
                width=width,
                norm_eps=config.norm_eps,
                drop_path=config.drop_path * (done + index) / last,
            )
            for index in range(config.depths[stage])
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> tuple[Tensor, Grid]:
        """The stage's tokens."""
        tokens, grid = self.patches(images)
        trace("patches", tokens)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, trace=trace.inside(f"block{index:02d}"))
        return trace("norm", self.norm(tokens)), grid


class Segformer(Backbone[SegformerConfig]):
    """Images (B, C, H, W) to the last stage's tokens (B, n, D), with the maps of all stages.

    Args:
        config: the network's configuration.
    """

    pyramid = True

    def __init__(self, config: SegformerConfig) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(SegformerStage(config, stage) for stage in range(len(config.depths)))

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """The tokens of the last stage, and the feature map of each."""
        del first, taps
        maps, result = [], images
        for number, stage in enumerate(self.stages):
            tokens, grid = stage(result, trace=trace.inside(f"stages.{number}"))
            result = on_grid(tokens, grid)
            maps.append(result)
        return Features(tokens=tokens, grid=grid, prefix=0, stages=tuple(maps))

    def layer_groups(self) -> list[list[str]]:
        """The patches of each stage with the block that follows, then each block; norms with the last."""
        depths = self.config.depths
        groups: list[list[str]] = [[] for _ in range(sum(depths))]
        for name, _ in self.named_parameters():
            parts = name.split(".")
            stage = int(parts[1])
            index = int(parts[3]) if parts[2] == "blocks" else 0 if parts[2] == "patches" else -1
            begin = sum(depths[:stage])
            groups[begin + index if index >= 0 else begin + depths[stage] - 1].append(name)
        return groups
