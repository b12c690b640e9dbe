"""TinyViT as a backbone (arXiv 2207.10666): a convolutional stage, then attending ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.convolution.inverted import ConvMerging, InvertedBlock, NormedConv
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.hierarchical.whole_block import WholeBlock
from tesela.layers.hierarchical.whole_windows import WholeWindowAttention
from tesela.layers.mlp import Mlp
from tesela.layers.norm import EPS
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone, Features
from tesela.models.pyramid import block_groups
from tesela.models.tiny_vit.config import EXPAND, STEMS, TinyVitConfig


class ConvStage(nn.Module):
    """(B, C, H, W) to (B, D, H', W'): two convolutions, then inverted bottlenecks.

    Args:
        config: the network's.
    """

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        width, last = config.widths[0], max(1, sum(config.depths) - 1)
        first, second = STEMS[config.stem]
        self.stem1 = NormedConv(config.channels, width // 2, 3, stride=first)
        self.stem2 = NormedConv(width // 2, width, 3, stride=second)
        self.blocks = nn.ModuleList(
            InvertedBlock(width, ratio=EXPAND, drop_path=config.drop_path * index / last)
            for index in range(config.depths[0])
        )

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The stage's map."""
        half = trace("stem1", self.stem1(images))
        result: Tensor = trace("stem2", self.stem2(F.gelu(half)))
        for index, block in enumerate(self.blocks):
            result = trace(f"block{index:02d}", block(result))
        return result


class WindowStage(nn.Module):
    """(B, C, H, W) to (B, D, H / 2, W / 2): the step between stages, then blocks that attend.

    Args:
        config: the network's.
        stage: from 1.
    """

    def __init__(self, config: TinyVitConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        done, last = sum(config.depths[:stage]), max(1, sum(config.depths) - 1)
        self.merging = ConvMerging(config.widths[stage - 1], width)
        self.blocks = nn.ModuleList(
            WholeBlock(
                WholeWindowAttention(width, config.heads[stage - 1], window=config.windows[stage - 1]),
                Mlp(width, config.hidden(stage), dropout=config.dropout),
                width=width,
                drop_path=config.drop_path * (done + index) / last,
            )
            for index in range(config.depths[stage])
        )

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The stage's map."""
        maps = trace("merging", self.merging(images))
        grid = maps.shape[2], maps.shape[3]
        tokens = maps.flatten(2).transpose(1, 2)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, trace=trace.inside(f"block{index:02d}"))
        return on_grid(tokens, grid)


class TinyVit(Backbone[TinyVitConfig]):
    """Images (B, C, H, W) to positions of the last feature map as tokens (B, n, D), with all stages' maps.

    Args:
        config: the network's configuration.
    """

    pyramid = cuts_windows = True

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__(config)
        later = (WindowStage(config, stage) for stage in range(1, len(config.depths)))
        self.stages = nn.ModuleList([ConvStage(config), *later])

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

    def merging_weights(self, stage: int) -> Tensor | None:
        """The step before a stage as a convolution (D, C, 3, 3)."""
        found = getattr(self.stages[stage], "merging", None)
        return None if found is None else found.as_convolution()

    def make_pooled_norm(self) -> nn.Module:
        """The LayerNorm between mean and head."""
        return nn.LayerNorm(self.config.width, eps=EPS)

    def no_decay(self) -> set[str]:
        """Biases, norms, and the tables of distances."""
        tables = {name for name, _ in self.named_parameters() if name.endswith(".table")}
        return super().no_decay() | tables

    def layer_groups(self) -> list[list[str]]:
        """Each block, the first of a stage with what comes before it."""
        return block_groups((name for name, _ in self.named_parameters()), self.config.depths)
