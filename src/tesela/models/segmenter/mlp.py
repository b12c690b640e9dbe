"""All-MLP decoder of SegFormer (arXiv 2105.15203, section 3.2).

Each scale is brought to one width by a linear map and to the finest size by bilinear upsampling; all are
stacked, the coarsest first, and fused by another linear map with batch norm and ReLU.

Odd: an upsampled linear map is the linear map of the upsampled, so the fusion's part for a scale can be
computed before upsampling; that is done, as it saves most of the products, and changes the last bits only. A
fusion that another library wraps or hooks into is called whole instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.hardware.torch_private import is_untouched
from tesela.layers.convolution.separable import Plain
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.initialise import xavier_uniform_
from tesela.layers.norm import BatchNorm
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Features
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import MlpDecoderConfig, read_widths


class MlpDecoder(nn.Module):
    """Feature maps (B, D_i, H_i, W_i) to logits (B, K, H_0, W_0).

    Args:
        config: width and dropout.
        backbone: the configuration of what gives the maps.
        num_classes: K.
    """

    def __init__(self, config: MlpDecoderConfig, backbone: ModelConfig, num_classes: int) -> None:
        super().__init__()
        widths = read_widths(config, backbone)
        self.width = config.width
        self.maps = nn.ModuleList(nn.Linear(width, config.width) for width in widths)
        self.fuse = Plain(config.width * len(widths), config.width, 1)
        self.norm = BatchNorm(config.width)
        self.dropout = nn.Dropout2d(config.dropout)
        self.linear = nn.Conv2d(config.width, num_classes, 1)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform maps; the last layer zero, so that every class starts equally likely."""
        for layer in self.maps:
            xavier_uniform_(layer, generator=generator)  # type: ignore[arg-type]
        nn.init.zeros_(self.linear.weight)
        assert self.linear.bias is not None
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits at the size of the finest map."""
        del images
        size = features.stages[0].shape[2:]
        if not is_untouched(self.fuse, Plain):
            return self._hidden_to_logits(self.fuse(self._stacked(features)), trace)
        weight = self.fuse.weight.flatten(1)
        starts = range(0, weight.shape[1], self.width)
        # slices, which are folded in a graph; the coarsest stands first
        parts = [weight[:, start : start + self.width] for start in starts][::-1]
        fused = None
        for stage, linear, part in zip(features.stages, self.maps, parts, strict=True):
            mapped = F.linear(linear(stage.flatten(2).transpose(1, 2)), part)
            cells = on_grid(mapped, (stage.shape[2], stage.shape[3]))
            if stage.shape[2:] != size:
                cells = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
            fused = cells if fused is None else fused + cells
        assert fused is not None
        return self._hidden_to_logits(fused, trace)

    def _stacked(self, features: Features) -> Tensor:
        """All maps at the size of the finest, the coarsest first: (B, D * maps, H_0, W_0)."""
        size, found = features.stages[0].shape[2:], []
        for stage, linear in zip(features.stages, self.maps, strict=True):
            cells = on_grid(linear(stage.flatten(2).transpose(1, 2)), (stage.shape[2], stage.shape[3]))
            found.append(F.interpolate(cells, size=size, mode="bilinear", align_corners=False))
        return torch.cat(found[::-1], dim=1)

    def _hidden_to_logits(self, fused: Tensor, trace: Trace) -> Tensor:
        hidden = trace("fuse", F.relu(self.norm(fused)))
        return trace("linear", self.linear(self.dropout(hidden)))
