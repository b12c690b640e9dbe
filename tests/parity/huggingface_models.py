"""Tiny models of transformers with random weights, saved as their own library saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 24,
    "patch_size": 8,
    "num_labels": 5,
}
PLAIN = {**SHAPE, "intermediate_size": 80}
DINO = {**SHAPE, "mlp_ratio": 2, "layerscale_value": 0.7}

#: Name -> class of transformers, its configuration.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", "ViTConfig", PLAIN),
    "vit-tanh-bare": (
        "ViTModel",
        "ViTConfig",
        {**PLAIN, "hidden_act": "gelu_pytorch_tanh", "qkv_bias": False},
    ),
    "deit-teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", PLAIN),
    "deit": ("DeiTForImageClassification", "DeiTConfig", PLAIN),
    "deit-bare": ("DeiTModel", "DeiTConfig", PLAIN),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", DINO),
    "dinov2-swiglu": (
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**DINO, "use_swiglu_ffn": True, "mlp_ratio": 4},
    ),
    "dinov2-no-mask": ("Dinov2ForImageClassification", "Dinov2Config", {**DINO, "use_mask_token": False}),
    "dinov2-bare": ("Dinov2Model", "Dinov2Config", DINO),
    "dinov2-registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**DINO, "num_register_tokens": 3},
    ),
    "dinov2-registers-bare": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**DINO, "num_register_tokens": 2},
    ),
}


def make(name: str, **changes: Any) -> Any:
    """A model of ``MODELS`` in which no tensor is zero, in evaluation mode."""
    kind, config, fields = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**{**fields, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def saved(name: str, folder: Path, **changes: Any) -> Any:
    """The same, saved in ``folder``."""
    model = make(name, **changes)
    model.save_pretrained(folder)
    return model


def result(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits, or the last layer's tokens of a bare model; positions are interpolated where that is needed."""
    config = model.config
    dino = config.model_type.startswith("dinov2")
    same = tuple(images.shape[2:]) == (config.image_size, config.image_size)
    with torch.no_grad():
        found = model(images) if dino or same else model(images, interpolate_pos_encoding=True)
    logits: torch.Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return logits


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """1e-5 of the largest value: single ones near zero have no meaningful relative error."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
