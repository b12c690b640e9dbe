"""Every option of the shared encoder that changes the network, at tiny width.

What the contract suite runs beside the named models.
"""

from __future__ import annotations

from typing import Any

from tesela.models.cct.config import CCTConfig
from tesela.models.encoder.config import EncoderConfig
from tesela.models.vit.config import ViTConfig


def variant(**fields: Any) -> EncoderConfig:
    """A ViT of two blocks of width 16 on small images that are not square, with ``fields`` on top."""
    base: dict[str, Any] = {
        "image_size": (8, 12),
        "patch_size": (4, 2),
        "channels": 2,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    return ViTConfig(**(base | fields))


def compact(**fields: Any) -> EncoderConfig:
    """A CCT of the same size, with ``fields`` on top."""
    base: dict[str, Any] = {"image_size": (20, 12), "width": 16, "depth": 2, "heads": 2, "tokenizer_width": 8}
    return CCTConfig(**(base | fields))


VARIANTS: dict[str, EncoderConfig] = {
    "patches as convolution": variant(patch_mode="conv"),
    "post-norm": variant(norm="post", final_norm=False, activation="relu"),
    "wide heads": variant(attention="wide", heads=3),
    "mean pooling": variant(pool="mean", position="sincos2d"),
    "sequence pooling": variant(pool="sequence", position="none"),
    "attention pooling": variant(pool="attention", registers=1, activation="gelu_tanh"),
    "attention pooling of patches alone": variant(
        pool="attention",
        pool_prefix=False,
        registers=2,
        activation="silu",
        position_mode="bicubic_offset",
    ),
    "distilled": variant(distillation=True, registers=3),
    "several class tokens": variant(class_tokens=3, registers=1),
    "bare prefix": variant(distillation=True, registers=2, prefix_positions=False, position_mode="bilinear"),
    "sine positions with prefix": variant(position="sincos2d", registers=2),
    "pre-training head": variant(head="mlp", head_width=24, qkv_bias=False),
    "all dropouts": variant(dropout=0.1, attention_dropout=0.1, drop_path=0.2),
    "row and column tables, one pair per block": variant(
        position="learned2d", position_at="block", registers=1
    ),
    "one table before every block": variant(position_at="shared", prefix_positions=False, registers=2),
    "relative positions": variant(position="relative", pool="mean", registers=1),
    "relative positions with wide heads": variant(position="relative", attention="wide", heads=3),
    "rotary positions": variant(position="rotary", distillation=True, registers=1),
    "axial": variant(attention="axial", position="relative", pool="class_mean", registers=1),
    "axial without prefix": variant(attention="axial", position="learned2d", pool="mean"),
    "windows on a padded grid": variant(
        attention="local", window=3, position="relative", image_size=(20, 14), pool="class_mean"
    ),
    "windows without prefix": variant(attention="local", window=2, position="rotary", pool="sequence"),
    "gated, with layer scale": variant(mlp="swiglu", layer_scale=0.1, pool="class_mean", registers=2),
    "norm of the embedded tokens, patches without bias": variant(
        embedded_norm="tokens", patch_bias=False, activation="quick_gelu", registers=1, norm_eps=1e-5
    ),
    "root mean square norms, no biases, gated": variant(
        norm_kind="rms", embedded_norm="patches", mlp="swiglu", dense_bias=False, qkv_bias=False, pool="mean"
    ),
    "norms of queries and keys, and inside of branches": variant(qk_norm=True, inner_norm="both"),
    "norm at the end of branches": variant(norm="branch", pool="mean", layer_scale=0.1, inner_norm="mlp"),
    "parallel branches": variant(norm="parallel", layer_scale=0.1, registers=1),
    "offset bias": variant(position="offset_bias", qkv_bias=True, pool="class", layer_scale=0.1),
    "offset bias, mean": variant(position="offset_bias", pool="class_mean", registers=2),
    "rotary positions across the image": variant(
        position="rotary", rotary_places="centred", rotary_offset=0.5, registers=4
    ),
    "rotary positions on a reference grid, with a table": variant(
        position="learned_rotary",
        rotary_places="reference",
        rotary_grid=(4, 3),
        rotary_base=10000.0,
        mlp="swiglu",
        inner_norm="mlp",
    ),
    "attention pooling with heads of its own": variant(
        pool="attention",
        pool_heads=4,
        pool_mlp_ratio=2.5,
        position="rotary",
        embedded_norm="tokens",
        norm_kind="rms",
    ),
    "cct with batch norm": compact(tokenizer_norm="batch", tokenizer_layers=2, pool="class"),
    "cct with large windows": compact(tokenizer_kernel=7, tokenizer_stride=2, position="sincos2d"),
    "cct with local attention": compact(
        attention="local", window=4, position="sincos2d", position_at="shared"
    ),
}
