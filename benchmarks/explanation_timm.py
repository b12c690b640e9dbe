"""Is captured attention timm's own, and dy/dA its gradient? And how do its heads read? One JSON line per
model.

    python benchmarks/explanation_timm.py --timm FOLDER

FOLDER holds timm and torchvision as in training_step.py. The reference is the same model in float64 with
the unfused attention; its maps are seen by hooks on the attention dropout and differentiated by autograd.
From them also the derivative by each patch's presence. The limit is 1e-5 relative to the largest value.
Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training_step import import_timm

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.explain import explain
from tesela.attribution.methods.gradient_rollout import attention_gradient, class_gradients

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 5}
LIMIT = 1e-5


def cases(timm: Any) -> dict[str, tuple[Callable[[], Any], tuple[int, int], list[float]]]:
    """Models, the size of their images, and the first shares of what their heads read."""
    plain, distilled = (
        timm.models.vision_transformer.VisionTransformer,
        timm.models.deit.VisionTransformerDistilled,
    )
    return {
        "class token": (lambda: plain(**SMALL, img_size=32), (32, 32), [1.0, 0.0]),
        "class token, 32 x 48": (lambda: plain(**SMALL, img_size=(32, 48)), (32, 48), [1.0, 0.0]),
        "another size, dynamic": (
            lambda: plain(**SMALL, img_size=32, dynamic_img_size=True),
            (48, 32),
            [1.0, 0.0],
        ),
        "registers": (lambda: plain(**SMALL, img_size=32, reg_tokens=4), (32, 32), [1.0, 0.0]),
        "mean pooling": (lambda: plain(**SMALL, img_size=32, global_pool="avg"), (32, 32), [0.0, 1 / 16]),
        "qk norm": (lambda: plain(**SMALL, img_size=32, qk_norm=True), (32, 32), [1.0, 0.0]),
        "attention pooling": (
            lambda: plain(**SMALL, img_size=32, global_pool="map", class_token=False),
            (32, 32),
            [],
        ),
        "distilled": (lambda: distilled(**SMALL, img_size=32), (32, 32), [0.5, 0.5]),
        "vit_small_patch16_224": (
            lambda: timm.create_model("vit_small_patch16_224", num_classes=5),
            (224, 224),
            [1.0, 0.0],
        ),
    }


def eager(model: Any, images: Tensor, target: int) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """A and dy/dA of each block, by hooks and autograd in float64."""
    twin, maps = copy.deepcopy(model).double(), []
    for block in twin.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda *call: maps.append(call[-1]))
    score = twin(images.double())[:, target].sum()
    return maps, torch.autograd.grad(score, maps)


def relative(ours: Tensor, expected: Tensor) -> float:
    return float((ours.double() - expected).abs().max() / expected.abs().max())


def compare(build: Callable[[], Any], size: tuple[int, int], start: list[float]) -> dict[str, Any]:
    """The largest relative differences over layers, and whether reading and grid are right."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    images = torch.randn(2, 3, *size)
    maps, slopes = eager(model, images, 3)
    with undisturbed(model):
        found = capture(model, images, gradient=True)
        light = capture(model, images, gradient=False)
    (gradients,) = class_gradients(found.logits[:, 3:4], [layer.out for layer in found.layers])
    rows = [attention_rows(layer)(0, found.tokens) for layer in found.layers]
    steps = [
        attention_gradient(layer, gradient)(0, found.tokens)
        for layer, gradient in zip(found.layers, gradients, strict=True)
    ]
    reads = [one.start()[0, 0, : len(start)].tolist() for one in (found, light)]
    result = {
        "layers": len(found.layers),
        "grid": found.grid,
        "prefix": found.prefix,
        "attention": max(relative(*pair) for pair in zip(rows, (one.detach() for one in maps), strict=True)),
        "gradient": max(relative(*pair) for pair in zip(steps, slopes, strict=True)),
        "reading": all(torch.allclose(torch.tensor(one), torch.tensor(start)) for one in reads)
        and (bool(start) or found.pool is not None),
    }
    # a head that reads patches has a part of its own, which timm's maps do not show
    if start and start[0] > 0:
        falls = [
            (a * (s - (a * s).sum(-1, keepdim=True))).sum((1, 2)) for a, s in zip(maps, slopes, strict=True)
        ]
        expected = torch.stack(falls).sum(0).detach()[:, found.prefix :]
        result["presence"] = relative(explain(model, images, 3, "presence").tokens[:, 0].flatten(1), expected)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timm", type=Path, required=True)
    sys.path.append(str(parser.parse_args().timm))
    rows = [{"timm": name, **compare(*case)} for name, case in cases(import_timm()).items()]
    for row in rows:
        print(json.dumps(row))
    worst = max(row.get(name, 0.0) for row in rows for name in ("attention", "gradient", "presence"))
    return 0 if worst <= LIMIT and all(row["reading"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
