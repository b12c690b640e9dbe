"""Activations of one image that autograd keeps for the backward pass, by layer.

For Vision Transformers whose attention is fused and full, in closed form; n tokens, width D, attention width
I, MLP width M, s bytes of a value of the matrix products:

    LayerNorm                       4 D n + 8 n   its input and statistics, always fp32
    qkv product, attention          s (D + 3 I + I) n + 4 H n   input, q, k, v, result, log-sum-exp
    LayerNorm                       4 D n + 8 n
    MLP                             s (D + 2 M) n   input, hidden values before and after the activation

The last block of a model with a class token computes that token alone; keys and values are still of all. Any
other network is counted by autograd on two empty images (``tesela.hardware.memory``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tesela.models.vit.config import ViTConfig

if TYPE_CHECKING:
    from tesela.models.catalog import ModelEntry
    from tesela.models.config import ModelConfig

#: Bytes of a value of the matrix products.
VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
#: The fp32 value of a residual stream, and mean and deviation of a LayerNorm.
RESIDUAL, STATISTICS = 4, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """Bytes of one image.

    Attributes:
        layers: name and bytes kept by each layer, from the image to the loss.
        entering: bytes of what enters a block, of which a checkpointed block keeps no more.
        working: largest gradients of activations that live at one time in the backward pass.
        counted: whether autograd counted them, instead of the closed form.
    """

    layers: tuple[tuple[str, int], ...]
    entering: int
    working: int
    counted: bool = False

    @property
    def kept(self) -> int:
        """Bytes of all layers."""
        return sum(size for _, size in self.layers)

    @property
    def checkpointed(self) -> int:
        """Bytes where each block keeps its input only and computes the rest again, one block at a time."""
        blocks = [size for name, size in self.layers if name.startswith("block")]
        if not blocks:
            return self.kept
        return self.kept - sum(blocks) + self.entering * len(blocks) + max(blocks)


def activations(
    entry: ModelEntry, config: ModelConfig, *, classes: int, precision: str, on_cpu: bool = False
) -> Activations:
    """What training with cross-entropy keeps of one image.

    Args:
        entry: the model.
        config: of the model, with its image size.
        classes: of its head.
        precision: fp32, bf16 or fp16.
        on_cpu: dropout's masks have a byte a value on a GPU, and whole values on a CPU.
    """
    if isinstance(config, ViTConfig) and _plain(config) and not entry.decoder:
        return _transformer(config, classes=classes, size=VALUE_BYTES[precision], on_cpu=on_cpu)
    return _counted(entry, config, classes=classes, size=VALUE_BYTES[precision])


def _plain(config: ViTConfig) -> bool:
    """Whether the closed form holds."""
    return (
        config.attention in ("full", "wide")
        and config.position not in ("relative", "rotary")
        and config.position_at == "input"
        and config.input_norm == "none"
        and config.norm == "pre"
        and config.pool in ("class", "mean", "class_mean")
        and config.head == "linear"
        and not (config.attention_dropout or config.patch_dropout or config.drop_path or config.registers)
    )


def _transformer(config: ViTConfig, *, classes: int, size: int, on_cpu: bool) -> Activations:
    width, image = config.width, config.channels * config.image_size[0] * config.image_size[1]
    rows, columns = config.grid()
    tokens = rows * columns + config.prefix
    read = config.special_tokens if config.pool == "class" else tokens
    mask = (size if on_cpu else 1) if config.dropout else 0
    last = config.depth - 1
    blocks = [
        (f"block{index:02d}", _block(config, tokens, read if index == last else tokens, size, mask))
        for index in range(config.depth)
    ]
    norm = read * (RESIDUAL * width + STATISTICS) if config.final_norm else 0
    pooled = config.pooled_norm * (RESIDUAL * config.pooled_width + STATISTICS)
    working = size * tokens * (2 * config.mlp_width + width)
    return Activations(
        layers=(
            ("images", RESIDUAL * image),
            ("patches", size * image + mask * tokens * width),
            *blocks,
            ("norm", norm + pooled),
            ("head", size * config.pooled_width + RESIDUAL * classes + 8),
        ),
        entering=RESIDUAL * tokens * width,
        working=working,
    )


def _block(config: ViTConfig, tokens: int, read: int, size: int, mask: int) -> int:
    """Bytes of a block that gets ``tokens`` tokens and gives the first ``read`` of them."""
    width, inner, hidden = config.width, config.attention_width, config.mlp_width
    scales = 2 * size * width * read if config.layer_scale else 0
    masks = mask * read * (2 * width + hidden)
    queries = 0 if read == tokens else size * width * read  # their input, cut out of all
    attention = size * (width + 2 * inner) * tokens + queries + size * 2 * inner * read
    attention += 4 * config.heads * read
    gate = 2 * hidden if config.mlp == "swiglu" else 0  # the gate, its SiLU and the value, and the product
    mlp = size * (width + 2 * hidden + gate) * read
    norms = (tokens + read) * (RESIDUAL * width + STATISTICS)
    return norms + attention + mlp + scales + masks


def _counted(entry: ModelEntry, config: ModelConfig, *, classes: int, size: int) -> Activations:
    """Counted on two empty images in fp32; in half precision half of it."""
    import torch
    from torch.nn.functional import cross_entropy

    from tesela.hardware.memory import activation_bytes
    from tesela.models.factory import create_model, create_segmenter

    model: torch.nn.Module = (
        create_segmenter(config, num_classes=classes, decoder=dict(entry.decoder))
        if entry.decoder
        else create_model(config, num_classes=classes)
    )
    images = torch.zeros(2, config.channels, *config.image_size)

    def loss(trial: torch.nn.Module) -> object:
        outputs = trial.train()(images)
        return cross_entropy(outputs, outputs.detach().argmax(1))

    found = activation_bytes(model, loss, images=2) * size // 4
    image = 4 * images[0].numel()
    return Activations(
        layers=(("images", image), ("network", found)), entering=found, working=found // 8, counted=True
    )
