"""The record of one forward pass: layers, grid, and how the head reads the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.attribution.capture.pooled import Pooled
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.methods.pyramid import Stage, upsampled_back
from tesela.attribution.methods.rollout import accurate, fuse
from tesela.core.errors import UsageError
from tesela.layers.trace import AttentionRecord

#: Elements of a block of attention rows with all heads and images: 4 MB in float32, about what a core's cache
#: holds.
BLOCK = 1_048_576


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """Record of one forward pass.

    Attributes:
        images: (B, C, H, W) as the model saw them; with gradients, the leaf of the graph.
        logits: (B, K), or (B, K, h, w) of a segmenter.
        layers: the self-attentions from input to output; empty where the model has none that can be walked.
        grid: rows and columns of patches; of pixels where the model does not say.
        prefix: tokens before the patches.
        pool: the attention with which the head reads the tokens, if it does.
        weights: (B, 1, n), the weights with which the head averages the patches, if it does.
        special: tokens that the head reads directly (class, distillation); 0 where it averages.
        read: (N,), the share of each token in what the head reads, where none of the three says it.
        stages: the layers by their grids, from the image up; one but in pyramids.
        shares: of each stage in what a segmenter's decoder reads.
        entering: (B, N, D) normalised tokens that entered each layer, by its name; only with gradients.
        pooled: the mean of tokens that the head reads, if it does; only with gradients.
        trouble: why there are no layers although the model has attention.
    """

    images: Tensor
    logits: Tensor
    layers: tuple[AttentionRecord, ...]
    grid: tuple[int, int]
    prefix: int
    pool: AttentionRecord | None
    weights: Tensor | None
    special: int
    read: Tensor | None = None
    stages: tuple[Stage, ...] = ()
    shares: tuple[float, ...] = ()
    entering: dict[str, Tensor] = field(default_factory=dict)
    pooled: Pooled | None = None
    trouble: str = ""

    @property
    def tokens(self) -> int:
        """N of the last layer: prefix and patches."""
        rows, columns = self.stages[-1].grid if self.stages else self.grid
        return self.prefix + rows * columns

    def start(self, *, fusion: str = "mean", patch: tuple[int, int] | None = None) -> Tensor:
        """(B, 1, N) weights of the last layer's tokens in the readout, or the unit vector of a patch.

        Raises:
            UsageError: the patch is not on the grid.
        """
        vector = torch.zeros(
            len(self.logits), 1, self.tokens, dtype=accurate(self.logits.device), device=self.logits.device
        )
        if patch is not None:
            vector[..., self.prefix + self._index(patch)] = 1.0
        elif self.pool is not None:
            keys = self.pool.k.shape[2]
            row = (
                fuse(attention_rows(self.pool)(0, self.pool.q.shape[2]), fusion)
                .mean(1, keepdim=True)
                .to(vector.dtype)
            )
            vector[..., self.tokens - keys :] += row / row.sum(-1, keepdim=True)
        elif self.weights is not None:
            vector[..., self.prefix :] = self.weights.detach()
        elif self.read is not None:
            vector += self.read.to(vector)
        elif self.special:
            vector[..., : self.special] = 1.0 / self.special
        else:
            vector[..., self.prefix :] = 1.0 / (self.tokens - self.prefix)
        return vector

    def starts(
        self, *, fusion: str = "mean", patch: tuple[int, int] | None = None, pixels: Tensor | None = None
    ) -> list[Tensor | None]:
        """For each stage, what is read of its last layer's tokens; all together have sum 1.

        Args:
            fusion: of a pool's heads.
            patch: start at this patch of the last layer instead.
            pixels: (B, T, h, w), for a segmenter, the weights of the pixels that are pulled back through its
                decoder.
        """
        if pixels is None or patch is not None:
            below: list[Tensor | None] = [None] * (len(self.stages) - 1)
            return [*below, self.start(fusion=fusion, patch=patch)]
        kind = accurate(self.logits.device)
        if len(self.stages) == 1:
            area = F.adaptive_avg_pool2d(pixels.to(kind), self.grid).flatten(2)
            return [F.pad(area / area.sum(-1, keepdim=True), (self.prefix, 0))]
        return [
            upsampled_back(pixels.to(kind), stage.grid) * share
            for stage, share in zip(self.stages, self.shares, strict=True)
        ]

    def _index(self, patch: tuple[int, int]) -> int:
        (row, column), (rows, columns) = patch, self.stages[-1].grid if self.stages else self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(
                f"there is no patch {row},{column} on a grid of {rows} x {columns}",
                hint="rows and columns count from 0",
            )
        return row * columns + column

    def block(self, layer: AttentionRecord | None = None) -> int:
        """Rows of attention to compute at once, in one layer or in any."""
        chosen = self.layers if layer is None else (layer,)
        widest = max(one.q.shape[0] * one.q.shape[1] * one.k.shape[2] for one in chosen)
        return max(1, BLOCK // widest)
