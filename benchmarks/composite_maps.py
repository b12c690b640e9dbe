"""The other maps of ``composites.py``.

Chance, picture, other libraries, and the reference rollout as it is published and repaired.

Each is a function of (model, images (B, C, H, W), class) and gives one value per patch, (B, Hp, Wp).
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_step import pass_over_missing_operators

from tesela.attribution.capture.call import undisturbed
from tesela.layers.trace import Trace

Maps = Callable[[nn.Module, Tensor, int], Tensor]


def nothing(name: str) -> bool:  # noqa: ARG001
    """Keep no tensor."""
    return False


def grid_of(model: Any, images: Tensor) -> tuple[int, int]:
    rows, columns = model.grid((images.shape[2], images.shape[3]))
    return int(rows), int(columns)


def pooled(pixels: Tensor, model: nn.Module) -> Tensor:
    """(B, C, H, W) to the mean of each patch over all channels."""
    return F.adaptive_avg_pool2d(pixels.detach().mean(1, keepdim=True), grid_of(model, pixels))[:, 0]


def chance(seed: int = 0) -> Maps:
    draw = torch.Generator().manual_seed(seed)
    return lambda model, images, wanted: torch.rand(  # noqa: ARG005
        len(images), *grid_of(model, images), generator=draw
    )


def centre(model: nn.Module, images: Tensor, wanted: int) -> Tensor:  # noqa: ARG001
    """Highest in the middle of the canvas, where the four boxes meet."""
    rows, columns = grid_of(model, images)
    down, right = torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2
    return (-(down[:, None] ** 2) - right[None] ** 2).expand(len(images), -1, -1)


def edges(model: nn.Module, images: Tensor, wanted: int) -> Tensor:  # noqa: ARG001
    """Size of the Sobel gradient."""
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(grey, one[None, None]) for one in (kernel, kernel.T))
    return pooled((across.square() + down.square()).sqrt(), model)


def attentions(model: nn.Module, images: Tensor, wanted: int) -> tuple[list[Tensor], list[Tensor]]:
    """A and dy/dA of each layer, (B, heads, N, N), the first layer first."""
    trace = Trace(keep=nothing)
    with undisturbed(model), torch.enable_grad():
        logits = model(images.clone().requires_grad_(), trace=trace)
        records = [trace.attentions[name] for name in sorted(trace.attentions) if name.startswith("block")]
        outs = torch.autograd.grad(logits[:, wanted].sum(), [record.out for record in records])
    gradients = [out @ record.v.detach().transpose(-2, -1) for out, record in zip(outs, records, strict=True)]
    return [record.dense().detach() for record in records], gradients


def reference_rollout(*, by_class: bool, repaired: bool, discard: float = 0.9) -> Maps:
    """The widely copied script's rollout, and its gradient form, with its defects or without them.

    As published: the gradients, collected during the backward pass, meet the layers in reversed order; the
    smallest entries of the whole matrix are cleared, of the first image in the batch only, and never the
    entry 0; columns are scaled where rows are meant.
    """

    def maps(model: nn.Module, images: Tensor, wanted: int) -> Tensor:
        layers, gradients = attentions(model, images, wanted)
        if by_class and not repaired:
            gradients = gradients[::-1]
        count = layers[0].shape[-1]
        result = torch.eye(count).expand(len(images), -1, -1)
        for attention, gradient in zip(layers, gradients, strict=True):
            fused = (attention * gradient).clamp(min=0).mean(1) if by_class else attention.mean(1)
            fused = _cleared_rows(fused, discard) if repaired else _cleared_whole(fused, discard)
            if repaired:
                total = fused.sum(-1, keepdim=True)
                fused = torch.where(total > 0, fused / total.clamp(min=1e-30), torch.eye(count))
            mixed = (fused + torch.eye(count)) / 2
            result = (mixed if repaired else mixed / mixed.sum(-1).unsqueeze(1)) @ result
        side = grid_of(model, images) if repaired else (math.isqrt(count - 1),) * 2
        return result[:, 0, 1:].reshape(-1, *side)

    return maps


def _cleared_whole(fused: Tensor, discard: float) -> Tensor:
    flat = fused.flatten(1).clone()
    smallest = flat.topk(int(flat.shape[1] * discard), largest=False).indices
    flat[0, smallest[smallest != 0]] = 0.0
    return flat.view_as(fused)


def _cleared_rows(fused: Tensor, discard: float) -> Tensor:
    """Of each row's patch columns the smallest go, but not the diagonal."""
    patches = fused[..., 1:]
    order = patches.argsort(dim=-1, stable=True)[..., : math.floor(discard * patches.shape[-1])]
    kept = fused.clone()
    kept[..., 1:] = patches.scatter(-1, order, 0.0)
    return torch.where(torch.eye(fused.shape[-1], dtype=torch.bool), fused, kept)


def of_captum(folder: Path) -> dict[str, Maps]:
    """Captum's saliency, integrated gradients and gradient x input, sizes summed over each patch."""
    sys.path.append(str(folder))
    from captum.attr import InputXGradient, IntegratedGradients, Saliency

    def maps(kind: Any, **options: Any) -> Maps:
        def one(model: nn.Module, images: Tensor, wanted: int) -> Tensor:
            with undisturbed(model):
                found = kind(model).attribute(images.clone().requires_grad_(), target=wanted, **options)
            return pooled(found.abs(), model)

        return one

    return {
        "captum saliency": maps(Saliency),
        "captum input x gradient": maps(InputXGradient),
        "captum integrated gradients": maps(IntegratedGradients, n_steps=32, internal_batch_size=64),
    }


def of_gradcam(folder: Path, peers: Path | None) -> dict[str, Maps]:
    """pytorch-grad-cam on the tokens that enter the last block, as its documentation advises for ViT."""
    for place in filter(None, (folder, peers)):
        sys.path.append(str(place))
    pass_over_missing_operators()
    library = importlib.import_module("pytorch_grad_cam")
    asked = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget

    def maps(kind: Any) -> Maps:
        def one(model: Any, images: Tensor, wanted: int) -> Tensor:
            rows, columns = grid_of(model, images)

            def to_image(tokens: Tensor) -> Tensor:
                return torch.unflatten(tokens[:, -rows * columns :].transpose(1, 2), 2, (rows, columns))

            with kind(
                model=Traced(model),
                target_layers=[model.backbone.blocks[-1].norm1],
                reshape_transform=to_image,
            ) as cam:
                found = cam(input_tensor=images, targets=[asked(wanted)] * len(images))
            return pooled(torch.from_numpy(found)[:, None], model)

        return one

    return {
        "grad-cam": maps(library.GradCAM),
        "grad-cam++": maps(library.GradCAMPlusPlus),
        "layer-cam": maps(library.LayerCAM),
    }


class Traced(nn.Module):
    """A model called with a trace, so that its last block computes all tokens, which the library wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.model(images, trace=Trace(keep=nothing, attention=False))
        return result


def baselines(captum: Path | None, gradcam: Path | None, peers: Path | None) -> dict[str, Maps]:
    """All by name; libraries only where their folders are given."""
    found: dict[str, Maps] = {"random": chance(), "centre": centre, "edges": edges}
    for by_class in (False, True):
        kind = "gradient rollout" if by_class else "rollout"
        found[f"reference {kind}, published"] = reference_rollout(by_class=by_class, repaired=False)
        found[f"reference {kind}, repaired"] = reference_rollout(by_class=by_class, repaired=True)
    if captum is not None:
        found |= of_captum(captum)
    if gradcam is not None:
        found |= of_gradcam(gradcam, peers)
    return found
