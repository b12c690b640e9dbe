"""Tiny backbones of transformers with random weights, saved as their own library saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "image_size": 24,
    "patch_size": 8,
}
_LABELS = {"num_labels": 5}
_PIXIO = {**{name: value for name, value in SHAPE.items() if name != "intermediate_size"}, "mlp_ratio": 2}
_TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "vocab_size": 50,
}
_WHOLE: dict[str, Any] = {"vision_config": SHAPE, "text_config": _TEXT}
_DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}

#: Name -> class of transformers, its configuration.
BACKBONE_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dinov3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SHAPE, "num_register_tokens": 2, "layerscale_value": 0.7},
    ),
    "dinov3-gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SHAPE, "use_gated_mlp": True, "hidden_act": "silu", "key_bias": True},
    ),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", SHAPE),
    "siglip-14-of-24": ("SiglipVisionModel", "SiglipVisionConfig", {**SHAPE, "patch_size": 7}),
    "siglip-without-head": ("SiglipVisionModel", "SiglipVisionConfig", {**SHAPE, "vision_use_head": False}),
    "siglip-classifier": ("SiglipForImageClassification", "SiglipConfig", {**_WHOLE, **_LABELS}),
    "siglip-whole": ("SiglipModel", "SiglipConfig", _WHOLE),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", SHAPE),
    "clip-projection": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**SHAPE, "projection_dim": 20}),
    "clip-classifier": ("CLIPForImageClassification", "CLIPConfig", {**_WHOLE, **_LABELS}),
    "clip-whole": ("CLIPModel", "CLIPConfig", _WHOLE),
    "mae": ("ViTMAEModel", "ViTMAEConfig", {**SHAPE, **_DECODER}),
    "mae-pretraining": ("ViTMAEForPreTraining", "ViTMAEConfig", {**SHAPE, **_DECODER}),
    "msn": ("ViTMSNModel", "ViTMSNConfig", SHAPE),
    "msn-classifier": ("ViTMSNForImageClassification", "ViTMSNConfig", {**SHAPE, **_LABELS}),
    "ijepa": ("IJepaModel", "IJepaConfig", SHAPE),
    "ijepa-classifier": ("IJepaForImageClassification", "IJepaConfig", {**SHAPE, **_LABELS}),
    "beit": ("BeitModel", "BeitConfig", {**SHAPE, "use_relative_position_bias": True}),
    "beit-classifier": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SHAPE, **_LABELS, "use_relative_position_bias": True},
    ),
    "beit-class-token": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SHAPE, **_LABELS, "use_absolute_position_embeddings": True, "use_mean_pooling": False},
    ),
    "beit-absolute": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SHAPE, **_LABELS, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
    ),
    "data2vec": (
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**SHAPE, **_LABELS, "use_relative_position_bias": True},
    ),
    "pixio": ("PixioModel", "PixioConfig", {**_PIXIO, "n_cls_tokens": 3}),
    "pixio-one-token": ("PixioModel", "PixioConfig", {**_PIXIO, "n_cls_tokens": 1, "qkv_bias": False}),
    "aimv2": ("Aimv2VisionModel", "Aimv2VisionConfig", SHAPE),
}


def make(name: str, **changes: Any) -> Any:
    """A model of ``BACKBONE_MODELS`` in which no tensor is zero and attention is far from uniform."""
    kind, config, fields = BACKBONE_MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**{**fields, **changes})).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            large = any(part in key for part in ("q_proj.weight", "k_proj.weight", "query", "key"))
            parameter.add_(torch.randn_like(parameter) * (0.4 if large else 0.1))
    return model


def saved(name: str, folder: Path, **changes: Any) -> Any:
    """The same, saved in ``folder``."""
    model = make(name, **changes)
    model.save_pretrained(folder)
    return model


def outputs(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits, or what the library pools of a bare model; positions are interpolated where that is needed."""
    kind = type(model).__name__
    with torch.no_grad():
        found: torch.Tensor = pooled(kind, model, images)
    return found


def pooled(kind: str, model: Any, images: torch.Tensor) -> Any:
    """The same with its graph, of a class by its name."""
    more: dict[str, Any] = {"interpolate_pos_encoding": True}
    if "DINOv3" in kind or "Aimv2" in kind or "Pixio" in kind:
        more = {}
    elif "MAE" in kind:
        model = getattr(model, "vit", model)
        patch, model.config.mask_ratio = model.config.patch_size, 0.0
        count = (images.shape[2] // patch) * (images.shape[3] // patch)
        more["noise"] = torch.arange(count, dtype=torch.float32).expand(len(images), -1)
    elif kind in ("SiglipModel", "CLIPModel", "CLIPVisionModelWithProjection"):
        model = model.vision_model
    found = model(images, **more)
    if hasattr(found, "logits"):
        return found.logits
    if "MAE" in kind or "MSN" in kind:
        return found.last_hidden_state[:, 0]
    own = None if "IJepa" in kind or "Aimv2" in kind else found.pooler_output
    return found.last_hidden_state.mean(1) if own is None else own
