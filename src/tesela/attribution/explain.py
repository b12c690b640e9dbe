"""``explain``: heat maps of images for classes, by any method, as tensors.

Images are what the model takes: (B, C, H, W), float32, normalised. One forward pass serves all classes. The
model is left as it was. A method gives a value per patch; the map at the input's size is that, linear between
patch centres, and is not normalised: for the rollouts the patches and the prefix mass have sum 1 together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tesela.attribution.capture.call import computing_type, undisturbed, unwrapped
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.dropping import masking_mode
from tesela.attribution.methods.rollout import Fusion, RolloutOptions
from tesela.attribution.methods.table import AUTO_METHOD, FEW_PATCHES, check_method, find_method, methods
from tesela.attribution.question import Class, Target, make_question
from tesela.attribution.request import Request, Settings
from tesela.core.errors import UsageError
from tesela.models.encoder.merged import MergedClassifier
from tesela.models.model import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Maps of B images for K classes each.

    Attributes:
        map: (B, K, H, W), float32, at the input's size.
        tokens: (B, K, Hp, Wp), float32, one value per patch.
        prefix_mass: (B, K), the share that stays on prefix tokens and is in no map; 0 for methods that follow
            no attention.
        scores: (B, K), the explained classes' logits; minus that of ``contrast``, if given; over a
            segmenter's pixels, their mean.
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
    method: str = AUTO_METHOD,
    head_fusion: Fusion = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    *,
    contrast: Class | None = None,
    region: Tensor | None = None,
    patch: tuple[int, int] | None = None,
    layer: int | None = None,
    head: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Explanation:
    """Which patches spoke for a class.

    Args:
        model: a classifier, (B, K), or a segmenter, (B, K, h, w), of tesela or of anybody, such as timm,
            transformers and torchvision.
        images: (B, C, H, W) or one (C, H, W), normalised as the model expects.
        target: a class's index or label, or a list of them; None explains each image's predicted class.
        method: one of ``tesela.attribution.methods.table.methods()``. auto is presence; gradient_rollout for
            a segmenter and where an option of rollouts is given; gradient_input for a model without
            attention; surrogate for a classifier of ours with 64 patches or fewer.
        head_fusion: mean, max or min; rollouts only, as the next two.
        discard: share of each row's patch columns to clear, the smallest first.
        residual: share of attention in a layer's mixing; the rest is the skip connection.
        contrast: a class to tell the targets from: the difference of the two logits is explained.
        region: of a segmenter, the pixels to explain, (H, W) or (B, H, W); those that the class wins where
            None.
        patch: start at this (row, column) of the last layer's grid instead of where the head reads.
        layer: of attention and gradcam, counted from 0, or from the end if negative; the last if None.
        head: of attention; all fused if None.
        samples: points of integrated_gradients (32), copies of smoothgrad (16), masks of rise (256),
            halves of surrogate (32).
        seed: of noise and masks.

    Raises:
        ConfigError: an option is out of its range.
        UsageError: the images, class, method or an option cannot be used with this model.
    """
    check_method(method)
    options = RolloutOptions(head_fusion=head_fusion, discard=discard, residual=residual)
    settings = Settings(patch=patch, layer=layer, head=head, samples=samples, seed=seed)
    labels, model = labels_of(model), unwrapped(model)
    if isinstance(model, MergedClassifier) and (method == AUTO_METHOD or methods()[method].attention):
        raise UsageError(
            f"this model merges tokens, and method {method!r} needs those of the grid of patches",
            hint="explain the model that it was made of, or use a method of the images: rise, occlusion",
        )
    bare = isinstance(model, Model) and not model.num_classes
    if bare and (method == AUTO_METHOD or methods()[method].by_class):
        raise UsageError(
            f"this model knows no classes, which method {method!r} explains", hint="use the method rollout"
        )
    inputs = _inputs(model, images)
    with undisturbed(model):
        found = capture(
            model,
            inputs,
            gradient=method == AUTO_METHOD or methods()[method].gradient,
            whole=patch is not None or layer is not None,
        )
        walk = found.logits.ndim == 4 or patch is not None or options != RolloutOptions()
        few = found.grid[0] * found.grid[1] <= FEW_PATCHES and masking_mode(model) == "dropped"
        chosen = find_method(method, attention=bool(found.layers), walk=walk, few=few, trouble=found.trouble)
        question = make_question(target, found.logits, labels, contrast=contrast, region=region)
        request = Request(model=model, capture=found, question=question, options=options, settings=settings)
        tokens, prefix_mass = chosen.load()(request)
    logits = found.logits.detach().float()
    return Explanation(
        map=F.interpolate(tokens, size=inputs.shape[2:], mode="bilinear", align_corners=False),
        tokens=tokens,
        prefix_mass=prefix_mass,
        scores=question.scores(logits),
        probabilities=question.probabilities(logits),
        targets=question.targets,
        method=chosen.name,
    )


def labels_of(model: nn.Module) -> list[str] | None:
    """The label names of a loaded model, ours or of transformers; None for one that was only created."""
    model = unwrapped(model)
    labels = getattr(getattr(model, "info", None), "labels", None)
    if labels:
        return list(labels)
    named = getattr(getattr(model, "config", None), "id2label", None)
    return (
        [str(named[index]) for index in range(len(named))]
        if isinstance(named, dict) and set(named) == set(range(len(named)))
        else None
    )


def _inputs(model: nn.Module, images: Tensor) -> Tensor:
    """The images as a batch, with the model's device and floating type."""
    if (
        not isinstance(images, Tensor)
        or images.ndim not in (3, 4)
        or not images.is_floating_point()
        or images.numel() == 0
    ):
        raise UsageError(
            f"images must be float32 of shape (B, C, H, W), not {describe_argument(images)}",
            hint="preprocess them with tesela.imaging.preprocess.preprocess and the model's image spec",
        )
    batch = images if images.ndim == 4 else images.unsqueeze(0)
    device = next((one.device for one in model.parameters()), batch.device)
    return batch.to(device=device, dtype=computing_type(model) or batch.dtype)


def describe_argument(value: object) -> str:
    """The type and shape of what was given, for an error."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
