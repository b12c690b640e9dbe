"""``explain``: heat maps of images for classes, by any method, as tensors.

Images are what the model takes: (B, C, H, W), float32, normalised. One forward pass serves all classes. The model is
left as it was. A method gives a value per patch; the map at the input's size is that, linear between patch centres, and
is not normalised: for the rollouts the patches and the prefix mass have sum 1 together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.explain.capture import Capture, attention_rows, capture, undisturbed
from tesela.explain.gradient import gradient_layers
from tesela.explain.input_gradient import gradient_input
from tesela.explain.methods import AUTO, METHODS, Method, check_method, find_method
from tesela.explain.rollout import Fusion, RolloutOptions, roll
from tesela.explain.target import Target, resolve_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Maps of B images for K classes each.

    Attributes:
        map: (B, K, H, W), float32, at the input's size.
        tokens: (B, K, Hp, Wp), float32, one value per patch.
        prefix_mass: (B, K), the share that stays on prefix tokens and is in no map; 0 for gradient_input.
        scores: (B, K), the explained classes' logits.
        probabilities: (B, K), their softmax probabilities.
        targets: (B, K), the explained classes.
        method: the method that was used.
    """

    map: Tensor
    tokens: Tensor
    prefix_mass: Tensor
    scores: Tensor
    probabilities: Tensor
    targets: Tensor
    method: str


def explain(
    model: nn.Module,
    images: Tensor,
    target: Target = None,
    method: str = AUTO,
    head_fusion: Fusion = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    *,
    patch: tuple[int, int] | None = None,
) -> Explanation:
    """Which patches spoke for a class.

    Args:
        model: a classifier.
        images: (B, C, H, W) or one (C, H, W), normalised as the model expects.
        target: a class's index or label, or a list of them; None explains each image's predicted class.
        method: a key of ``tesela.explain.methods.METHODS``; auto is gradient_rollout, or gradient_input for a model without attention.
        head_fusion: mean, max or min; rollouts only, as the rest.
        discard: share of each row's patch columns to clear, the smallest first.
        residual: share of attention in a layer's mixing; the rest is the skip connection.
        patch: start at this (row, column) of the grid instead of where the head reads.

    Raises:
        UsageError: the images, class, method or an option cannot be used with this model.
    """
    check_method(method)
    options = RolloutOptions(head_fusion=head_fusion, discard=discard, residual=residual, literature=method == "rollout_literature")
    inputs = _inputs(model, images)
    with undisturbed(model):
        found = capture(model, inputs, gradient=method == AUTO or METHODS[method].gradient)
        chosen = find_method(method, attention=bool(found.layers))
        targets = resolve_targets(target, found.logits, labels_of(model))
        tokens, prefix_mass = _apply(chosen, found, targets, options, patch)
    logits = found.logits.detach().float()
    return Explanation(
        map=F.interpolate(tokens, size=inputs.shape[2:], mode="bilinear", align_corners=False),
        tokens=tokens,
        prefix_mass=prefix_mass,
        scores=logits.gather(1, targets),
        probabilities=logits.softmax(1).gather(1, targets),
        targets=targets,
        method=chosen.name,
    )


def _apply(
    method: Method, found: Capture, targets: Tensor, options: RolloutOptions, patch: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Tokens (B, K, Hp, Wp) and prefix mass (B, K)."""
    if not method.attention:
        tokens = gradient_input(found, targets)
        return tokens, tokens.new_zeros(targets.shape)
    start = found.start(fusion=options.head_fusion, patch=patch)
    block, prefix = found.block(), found.prefix
    if method.gradient:
        walks = gradient_layers(found, targets, precise=options.delicate)
        parts = [roll(layers, start, prefix=prefix, options=options, block=block) for layers in walks]
        shares = torch.cat(parts, dim=1)
    else:
        rows = (attention_rows(layer, precise=options.delicate) for layer in reversed(found.layers))
        shares = roll(rows, start, prefix=prefix, options=options, block=block).expand(-1, targets.shape[1], -1)
    return shares[..., prefix:].reshape(*targets.shape, *found.grid).float(), shares[..., :prefix].sum(-1).float()


def labels_of(model: nn.Module) -> list[str] | None:
    """The label names of a loaded model; None for one that was only created."""
    labels = getattr(getattr(model, "info", None), "labels", None)
    return list(labels) if labels else None


def _inputs(model: nn.Module, images: Tensor) -> Tensor:
    """The images as a batch, with the model's device and floating type."""
    if not isinstance(images, Tensor) or images.ndim not in (3, 4) or not images.is_floating_point() or images.numel() == 0:
        raise UsageError(
            f"images must be float32 of shape (B, C, H, W), not {describe(images)}",
            hint="preprocess them with tesela.imaging.preprocess.preprocess and the model's image spec",
        )
    batch = images if images.ndim == 4 else images.unsqueeze(0)
    parameter = next((one for one in model.parameters() if one.is_floating_point()), None)
    return batch if parameter is None else batch.to(device=parameter.device, dtype=parameter.dtype)


def describe(value: object) -> str:
    """The type and shape of what was given, for an error."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
