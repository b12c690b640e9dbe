"""Block of ConvNeXt (arXiv 2201.03545) and the response norm of its second version.

A depthwise 7x7 convolution, LayerNorm, then an MLP of each pixel, added to what came in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.block import DropPath
from tesela.layers.convolution.depthwise import DepthwiseConv
from tesela.layers.convolution.next_plan import KERNEL, RATIO
from tesela.layers.initialise import lecun_normal_, xavier_uniform_
from tesela.layers.layer_scale import LayerScale


class PatchConv(nn.Conv2d):
    """(B, C, H, W) to (B, D, H // side, W // side): each patch of side x side pixels alone, with a bias.

    Args:
        before: C.
        after: D.
        side: of a patch.
    """

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__(before, after, side, side)

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal, bias zero."""
        lecun_normal_(self.weight, generator=generator)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class MapNorm(nn.LayerNorm):
    """LayerNorm of each pixel of a map (B, C, H, W) over its channels."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response norm (arXiv 2301.00808, equations 1 to 3) of maps (B, H, W, D).

    Each channel's L2 norm over the image, by the mean of all channels' norms, scales that channel.

    Args:
        width: D.
        eps: added to the mean.
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.empty(width))
        self.beta = nn.Parameter(torch.empty(width))

    def reset(self, generator: Generator | None = None) -> None:  # noqa: ARG002
        """Both zero: the norm starts as the identity."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, H, W, D) to the same."""
        wide = maps.float()  # a sum of squares over the image, in bf16, would lose its last terms
        size = wide.square().sum(dim=(1, 2), keepdim=True).sqrt()
        share = size / (size.mean(dim=-1, keepdim=True) + self.eps)
        return (wide + self.gamma * (wide * share) + self.beta).to(maps.dtype)


class NextMlp(nn.Module):
    """(B, H, W, D) to the same: dense layer, GELU, response norm where there is one, dense layer.

    Args:
        width: D.
        response_norm: whether there is one.
    """

    def __init__(self, width: int, *, response_norm: bool) -> None:
        super().__init__()
        self.expand = Dense(width, RATIO * width)
        self.norm = ResponseNorm(RATIO * width) if response_norm else None
        self.contract = Dense(RATIO * width, width)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights, biases zero."""
        xavier_uniform_(self.expand, generator=generator)
        xavier_uniform_(self.contract, generator=generator)

    def forward(self, maps: Tensor) -> Tensor:
        """The function of each pixel."""
        hidden = F.gelu(self.expand(maps))
        hidden = hidden if self.norm is None else self.norm(hidden)
        result: Tensor = self.contract(hidden)
        return result


class NextBlock(nn.Module):
    """(B, C, H, W) to the same.

    Args:
        width: C.
        norm_eps: epsilon of the LayerNorm.
        response_norm: whether the MLP has one.
        layer_scale: first value of the branch's factors; 0 for none.
        drop_path: rate of stochastic depth of the branch.
    """

    def __init__(
        self, width: int, *, norm_eps: float, response_norm: bool, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(width, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = NextMlp(width, response_norm=response_norm)
        self.scale = LayerScale(width, layer_scale) if layer_scale else None
        self.drop_path = DropPath(drop_path)

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal convolution, bias zero."""
        lecun_normal_(self.depthwise.weight, generator=generator)
        assert self.depthwise.bias is not None
        nn.init.zeros_(self.depthwise.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The sum of what came in and the branch."""
        branch = self.mlp(self.norm(self.depthwise(images).permute(0, 2, 3, 1)))
        branch = branch if self.scale is None else self.scale(branch)
        result: Tensor = images + self.drop_path(branch.permute(0, 3, 1, 2))
        return result
