"""Swin as a backbone (arXiv 2103.14030): stages of tokens on ever coarser grids."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.convolution.next_block import PatchConv
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.merging import PatchMerging
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.hierarchical.shifted_attention import ShiftedAttention
from tesela.layers.hierarchical.swin_block import SwinBlock
from tesela.layers.hierarchical.swin_plan import merged_grid
from tesela.layers.mlp import Mlp
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.pyramid import block_groups
from tesela.models.swin.config import SwinConfig

#: Epsilon of the norms after the patches and before a merging, whatever that of the blocks is.
EDGE_EPS = 1e-5


class SwinStage(nn.Module):
    """Images, or tokens of the stage before on their grid, to tokens (B, n, D) and their grid.

    Args:
        config: the network's.
        stage: from 0.
    """

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        done, last = sum(config.depths[:stage]), max(1, sum(config.depths) - 1)
        if stage == 0:
            self.patches = PatchConv(config.channels, width, config.patch)
            self.norm = nn.LayerNorm(width, eps=EDGE_EPS)
            self.dropout = nn.Dropout(config.dropout)
        else:
            self.merging = PatchMerging(config.widths[stage - 1], width, norm_eps=EDGE_EPS)
        self.blocks = nn.ModuleList(
            SwinBlock(
                ShiftedAttention(
                    width,
                    config.heads[stage],
                    windows=config.plan(stage, index),
                    qkv_bias=config.qkv_bias,
                    dropout=config.dropout,
                    attention_dropout=config.attention_dropout,
                ),
                Mlp(width, config.hidden(stage), dropout=config.dropout),
                width=width,
                norm_eps=config.norm_eps,
                drop_path=config.drop_path * (done + index) / last,
            )
            for index in range(config.depths[stage])
        )

    def embed(self, images: Tensor, *, trace: Trace = OFF) -> tuple[Tensor, Grid]:
        """Patches of images (B, C, H, W), which are padded below and to the right to whole ones."""
        down, right = (-side % self.patches.kernel_size[0] for side in images.shape[2:])
        cells = self.patches(F.pad(images, (0, right, 0, down)) if down or right else images)
        tokens: Tensor = trace("patches", cells.flatten(2).transpose(1, 2))
        tokens = trace("norm", self.dropout(self.norm(tokens)))
        return tokens, (cells.shape[2], cells.shape[3])

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """The tokens after the stage's blocks."""
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, trace=trace.inside(f"block{index:02d}"))
        return tokens


class Swin(Backbone[SwinConfig]):
    """Images (B, C, H, W) to the last stage's tokens (B, n, D), with the maps of all stages.

    Args:
        config: the network's configuration.
    """

    pyramid = cuts_windows = True

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(SwinStage(config, stage) for stage in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """The tokens of the last stage after the last norm, and the map of each stage."""
        del first, taps
        maps = []
        for number, stage in enumerate(self.stages):
            inner = trace.inside(f"stages.{number}")
            if number == 0:
                tokens, grid = stage.embed(images, trace=inner)  # type: ignore[operator]
            else:
                tokens = inner("merging", stage.merging(tokens, grid))  # type: ignore[operator]
                grid = merged_grid(grid)
            tokens = stage(tokens, grid, trace=inner)
            if number == len(self.stages) - 1:
                tokens = trace("norm", self.norm(tokens))
            maps.append(on_grid(tokens, grid))
        return Features(tokens=tokens, grid=grid, prefix=0, stages=tuple(maps))

    def merging_weights(self, stage: int) -> Tensor | None:
        """The merging before a stage as a convolution (D, C, 2, 2)."""
        found = getattr(self.stages[stage], "merging", None)
        return None if found is None else found.as_convolution()

    def no_decay(self) -> set[str]:
        """Biases, norms, and the tables of offsets."""
        tables = {name for name, _ in self.named_parameters() if name.endswith(".table")}
        return super().no_decay() | tables

    def layer_groups(self) -> list[list[str]]:
        """Each block, the first of a stage with what comes before it, the last with the last norm."""
        return block_groups((name for name, _ in self.named_parameters()), self.config.depths)
