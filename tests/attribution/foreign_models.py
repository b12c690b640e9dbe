"""Small models of other libraries with random weights, and attention written by hand in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

SIZE = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "patch_size": 4,
}
PYRAMID = {
    "depths": [2, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
    "sr_ratios": [8, 4, 2, 1],
    "decoder_hidden_size": 16,
    "num_labels": 5,
}


def _siglip() -> Any:
    return transformers.SiglipVisionConfig(**SIZE, image_size=24)


FAMILIES: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "vit": (
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(**SIZE, image_size=(16, 24), num_labels=5)
        ),
        (16, 24),
    ),
    "deit with teacher": (
        lambda: transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(**SIZE, image_size=(16, 24), num_labels=5)
        ),
        (16, 24),
    ),
    "dinov2 with registers": (
        lambda: transformers.Dinov2WithRegistersForImageClassification(
            transformers.Dinov2WithRegistersConfig(**SIZE, image_size=24, num_labels=5, num_register_tokens=4)
        ),
        (16, 24),
    ),
    "siglip, attention pooling": (lambda: transformers.SiglipVisionModel(_siglip()), (24, 24)),
    "siglip, mean pooling": (
        lambda: transformers.SiglipForImageClassification(
            transformers.SiglipConfig(
                vision_config=_siglip().to_dict(),
                text_config={"bos_token_id": 0, "eos_token_id": 1},
                num_labels=5,
            )
        ),
        (24, 24),
    ),
    "segformer classifier": (
        lambda: transformers.SegformerForImageClassification(transformers.SegformerConfig(**PYRAMID)),
        (64, 96),
    ),
    "segformer segmenter": (
        lambda: transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**PYRAMID)),
        (64, 96),
    ),
}


def make(name: str, *, kernel: str = "sdpa") -> tuple[Any, Tensor]:
    """A model in evaluation mode whose weights are not small, and two images."""
    build, size = FAMILIES[name]
    torch.manual_seed(0)
    model = build().eval()
    model.set_attn_implementation(kernel)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model, torch.randn(2, 3, *size, generator=generator)


def outputs(found: Any) -> Tensor:
    """Logits, or the pooled vector."""
    logits = getattr(found, "logits", None)
    result: Tensor = found.pooler_output if logits is None else logits
    return result


class Written(nn.Module):
    """Self-attention of (B, N, 12) written out.

    ``matmul``, ``einsum``, ``bmm`` (heads beside images), or torch's module.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.num_heads = 3
        self.qkv = nn.Linear(12, 36)
        self.module = nn.MultiheadAttention(12, 3, batch_first=True) if how.startswith("module") else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.module is not None:
            mixed: Tensor = self.module(
                tokens, tokens, tokens, need_weights=self.how == "module with weights"
            )[0]
            return mixed
        q, k, v = self.qkv(tokens).unflatten(2, (3, 3, 4)).transpose(1, 3).unbind(2)
        if self.how == "bmm":
            weights = F.softmax(torch.bmm(q.flatten(0, 1) * 0.5, k.flatten(0, 1).transpose(1, 2)), dim=-1)
            mixed = torch.bmm(weights, v.flatten(0, 1)).unflatten(0, (-1, 3))
        elif self.how == "einsum":
            weights = torch.einsum("b h i d, b h j d -> b h i j", q, k).mul(0.5).softmax(dim=-1)
            mixed = torch.einsum("b h i j, b h j d -> b h i d", weights, v)
        else:
            mixed = F.dropout((q @ k.transpose(-1, -2) * 0.5).softmax(-1), 0.3, self.training) @ v
        return mixed.transpose(1, 2).flatten(2)


class Plain(nn.Module):
    """Two layers of ``Written`` over 2 x 3 patches and a class token, no configuration at all.

    ``last`` runs after ``first``.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.cut = nn.Conv2d(3, 12, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.first = Written(how)
        self.last = Written(how)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = torch.cat(
            [self.token.expand(len(images), -1, -1), self.cut(images).flatten(2).transpose(1, 2)], dim=1
        )
        for layer in (self.first, self.last):
            tokens = F.layer_norm(tokens, (12,))
            tokens = tokens + layer(tokens)
        return {"logits": self.head(tokens[:, 0])}
