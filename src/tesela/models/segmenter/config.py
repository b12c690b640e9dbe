"""Decoders of segmenters and their settings, without torch.

A decoder goes with any backbone, unless its ``check`` says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError
from tesela.core.registry import lookup, names, registered_config
from tesela.layers.convolution.unit_plan import unit_parameters, unit_products
from tesela.layers.grid import Grid
from tesela.models.config import ModelConfig

#: Scales of the light decoder's own view of the image: stride and channels.
DETAIL = ((2, 24), (4, 48), (8, 64))
#: Convolutions of the light decoder on the coarsest scale.
CONTEXT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig(ABC):
    """Settings of a decoder."""

    @abstractmethod
    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Number of trainable values on that backbone, in closed form."""

    @abstractmethod
    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way from the features to the logits, upsampling left out."""

    def taps(self, backbone: ModelConfig) -> tuple[int, ...]:
        """Blocks of an encoder of one resolution whose tokens are read, beside the last norm's."""
        del backbone
        return ()

    def check(self, backbone: ModelConfig) -> None:
        """Raise ConfigError where the decoder and the backbone do not go together."""
        del backbone


@registered_config(
    "decoder",
    "linear",
    target="tesela.models.segmenter.linear:LinearDecoder",
    summary="one linear map of each token, then bilinear upsampling: the baseline",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class LinearDecoderConfig(DecoderConfig):
    """A linear map."""

    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Weight and bias."""
        return (backbone.token_width + 1) * num_classes

    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """One product for each token."""
        return cell_count(backbone.grid(image_size)) * backbone.token_width * num_classes


@registered_config(
    "decoder",
    "patch",
    target="tesela.models.segmenter.patch:PatchDecoder",
    summary="each token to the logits of its own patch's pixels, no convolution",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class PatchDecoderConfig(DecoderConfig):
    """One linear layer, or an MLP, shared by all tokens."""

    hidden: int = 0
    """Width of a hidden layer with GELU; 0 for one linear layer."""

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ConfigError(f"hidden cannot be {self.hidden}", hint="0 is one linear layer")

    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Of one or two layers."""
        height, width = patch_side(backbone)
        read = self.hidden or backbone.token_width
        first = (backbone.token_width + 1) * self.hidden
        return first + (read + 1) * height * width * num_classes

    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """One or two products for each token."""
        pixels = cell_count(patch_side(backbone)) * num_classes
        each = backbone.token_width * self.hidden + (self.hidden or backbone.token_width) * pixels
        return cell_count(backbone.grid(image_size)) * each

    def check(self, backbone: ModelConfig) -> None:
        """Tokens must be patches that fill the image."""
        patch_side(backbone)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledDecoderConfig(DecoderConfig):
    """Settings of decoders that bring several feature maps to one width."""

    width: int = 256
    """Channels of every scale."""
    dropout: float = 0.1
    """Share of the channels that is left out before the last layer."""
    blocks: int = 4
    """With an encoder of one resolution: how many of its blocks are read, evenly spread up to the last."""

    def __post_init__(self) -> None:
        if min(self.width, self.blocks) < 1:
            raise ConfigError(
                f"width and blocks of a decoder must be 1 or more, not {self.width} and {self.blocks}",
                hint="leave them at their defaults",
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), not {self.dropout}", hint="0.1 is usual")

    def taps(self, backbone: ModelConfig) -> tuple[int, ...]:
        """Evenly spread."""
        return spread_taps(backbone, self.blocks)


@registered_config(
    "decoder",
    "mlp",
    target="tesela.models.segmenter.mlp:MlpDecoder",
    summary="SegFormer's: a linear map of each scale, upsampled to the finest, fused (arXiv 2105.15203)",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class MlpDecoderConfig(ScaledDecoderConfig):
    """Linear maps, one fusion, batch norm, ReLU."""

    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Of the maps, the fusion with its norm, and the last layer."""
        widths = read_widths(self, backbone)
        maps = sum(width + 1 for width in widths) * self.width
        return maps + len(widths) * self.width**2 + 2 * self.width + (self.width + 1) * num_classes

    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """Of each scale's two maps at its own size, and the last layer at the finest."""
        scales = read_scales(self, backbone, image_size)
        maps = sum(cell_count(grid) * (width + self.width) * self.width for grid, width in scales)
        return maps + cell_count(scales[0][0]) * self.width * num_classes


@registered_config(
    "decoder",
    "light",
    target="tesela.models.segmenter.light:LightDecoder",
    summary="separable convolutions from coarse to fine, with the image's own details beside the tokens",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class LightDecoderConfig(ScaledDecoderConfig):
    """Few channels, several scales."""

    width: int = 128
    """Channels of every scale."""
    detail: bool = True
    """Read the image itself too, at a quarter and an eighth of its size, where the backbone has nothing that
    fine."""

    def detail_levels(self, backbone: ModelConfig) -> tuple[tuple[int, int], ...]:
        """Stride and channels of the convolutions of the image itself, from fine to coarse.

        Those of ``DETAIL`` that are finer than the backbone's finest map.
        """
        finest = backbone.image_size[0] / backbone.stage_grids(backbone.image_size)[0][0]
        levels = tuple(level for level in DETAIL if level[0] < finest) if self.detail else ()
        return levels if len(levels) > 1 else ()

    def refinements(self, backbone: ModelConfig) -> int:
        """Scales that are finer than the coarsest."""
        return len(backbone.stage_widths) - 1 + max(0, len(self.detail_levels(backbone)) - 1)

    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Of the details, each scale's map, the units of each scale and the last layer."""
        width, before, total = self.width, backbone.channels, 0
        for stride, after in self.detail_levels(backbone):
            total += unit_parameters(before, after, separable=stride > DETAIL[0][0])
            total += unit_parameters(after, width, kernel=1) if stride > DETAIL[0][0] else 0
            before = after
        total += sum(unit_parameters(each, width, kernel=1) for each in read_widths(self, backbone))
        units = CONTEXT + self.refinements(backbone)
        return total + units * unit_parameters(width, width, separable=True) + (width + 1) * num_classes

    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """Of the details, each scale's map, the units of each scale and the last layer."""
        width, before, total = self.width, backbone.channels, 0
        levels = [cell_count(grid) for grid in backbone.stage_grids(image_size)]
        for stride, after in self.detail_levels(backbone):
            cells = -(-image_size[0] // stride) * -(-image_size[1] // stride)
            total += cells * unit_products(before, after, separable=stride > DETAIL[0][0])
            if stride > DETAIL[0][0]:
                total += cells * after * width
                levels.append(cells)
            before = after
        scales = read_scales(self, backbone, image_size)
        total += sum(cell_count(grid) * each * width for grid, each in scales)
        levels.sort()
        unit = unit_products(width, width, separable=True)
        return total + (CONTEXT * levels[0] + sum(levels[1:])) * unit + levels[-1] * width * num_classes


@registered_config(
    "decoder",
    "unet",
    target="tesela.models.segmenter.unet:UnetDecoder",
    summary="U-Net's expanding half: upsampling, skip connection, two convolutions on each scale",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class UnetDecoderConfig(DecoderConfig):
    """Two convolutions on each scale."""

    widths: tuple[int, ...] = ()
    """Channels of each scale, from coarse to fine; the encoder's own where none is given."""
    separable: bool | None = None
    """Depthwise-separable convolutions; as in the encoder where nothing is said."""

    def check(self, backbone: ModelConfig) -> None:
        """The backbone must be a pyramid, and every scale must have its width."""
        if len(backbone.stage_widths) < 2:
            raise ConfigError(
                "the decoder unet needs feature maps of several scales",
                hint="use --decoder.name light, or a model such as unet, resnet34 or segformer_b0",
            )
        if self.widths and len(self.widths) < len(backbone.stage_widths) - 1:
            raise ConfigError(
                f"widths {self.widths} are too few for {len(backbone.stage_widths)} scales",
                hint=f"give {len(backbone.stage_widths) - 1} or more numbers, from coarse to fine",
            )

    def levels(self, backbone: ModelConfig) -> list[tuple[int, int]]:
        """For each scale from coarse to fine: channels that enter, the skip's among them, and that leave."""
        scales = backbone.stage_widths[::-1]
        skips, before, found = scales[1:], scales[0], []
        for index, after in enumerate(self.widths or skips):
            skip = skips[index] if index < len(skips) else 0
            found.append((before + skip, after))
            before = after
        return found

    def thin(self, backbone: ModelConfig) -> bool:
        """Whether convolutions are depthwise-separable."""
        return getattr(backbone, "separable", False) if self.separable is None else self.separable

    def parameter_count(self, backbone: ModelConfig, num_classes: int) -> int:
        """Of the units of each scale and the last layer."""
        thin, levels = self.thin(backbone), self.levels(backbone)
        units = sum(
            unit_parameters(before, after, separable=thin) + unit_parameters(after, after, separable=thin)
            for before, after in levels
        )
        return units + (levels[-1][1] + 1) * num_classes

    def products(self, backbone: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> int:
        """Of the units of each scale and the last layer."""
        thin, grids = self.thin(backbone), backbone.stage_grids(image_size)[-2::-1]
        total, grid = 0, image_size
        for index, (before, after) in enumerate(self.levels(backbone)):
            grid = grids[index] if index < len(grids) else (2 * grid[0], 2 * grid[1])
            both = unit_products(before, after, separable=thin) + unit_products(after, after, separable=thin)
            total += cell_count(grid) * both
        return total + cell_count(grid) * after * num_classes


def decoder_names() -> list[str]:
    """All decoders, sorted."""
    return names("decoder")


def decoder_config(settings: Mapping[str, Any]) -> tuple[str, DecoderConfig]:
    """Name and configuration of a decoder from its settings, whose key ``name`` says which it is.

    Raises:
        UnknownNameError: no such decoder.
        ConfigError: it has no such setting, or the value does not fit.
    """
    entry = lookup("decoder", str(settings.get("name", "light")))
    own = {key: value for key, value in settings.items() if key != "name"}
    config: DecoderConfig = build(entry.config or dict, own)
    return entry.name, config


def decoder_settings(name: str, config: DecoderConfig) -> dict[str, Any]:
    """The settings that ``decoder_config`` reads, all fields."""
    return {"name": name, **to_mapping(config)}


def patch_side(backbone: ModelConfig) -> tuple[int, int]:
    """Height and width in pixels of the part of the image that a token stands for.

    Raises:
        ConfigError: the tokens' parts do not fill the image.
    """
    (height, width), (rows, columns) = backbone.image_size, backbone.grid()
    if height % rows or width % columns or backbone.grid((2 * height, 2 * width)) != (2 * rows, 2 * columns):
        raise ConfigError(
            f"{rows}x{columns} tokens do not tile an image of {height}x{width} pixels",
            hint="use --decoder.name linear or light",
        )
    return height // rows, width // columns


def spread_taps(backbone: ModelConfig, count: int) -> tuple[int, ...]:
    """``count`` blocks of an encoder, evenly spread up to the last; none of a pyramid."""
    depth = getattr(backbone, "depth", 0)
    if not depth:
        return ()
    return tuple(sorted({max(0, round(depth * (index + 1) / count) - 1) for index in range(count)}))


def read_widths(decoder: DecoderConfig, backbone: ModelConfig) -> tuple[int, ...]:
    """Channels of each feature map that a decoder reads."""
    return backbone.stage_widths * max(1, len(decoder.taps(backbone)))


def read_scales(
    decoder: DecoderConfig, backbone: ModelConfig, image_size: tuple[int, int]
) -> list[tuple[Grid, int]]:
    """Rows and columns, and channels, of each feature map that a decoder reads."""
    grids = backbone.stage_grids(image_size) * max(1, len(decoder.taps(backbone)))
    return list(zip(grids, read_widths(decoder, backbone), strict=True))


def cell_count(grid: Grid) -> int:
    """Cells of a grid."""
    return grid[0] * grid[1]
