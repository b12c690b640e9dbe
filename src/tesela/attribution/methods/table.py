"""The methods by name, without torch: what the command line lists and what an error offers.

What a method does is in the module of its name (both rollouts and attention are in ``attention_walk``); they are called in ``explanation``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tesela.core.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to make a heat map.

    Attributes:
        name: what users type.
        summary: one line for lists.
        attention: whether the model must have attention that can be traced.
        gradient: whether it differentiates the captured pass.
        by_class: whether the map depends on the class; if not, it is the same for every class of a classifier.
        passes: forward passes beyond the captured one, about; ``n`` where it grows with the number of patches.
    """

    name: str
    summary: str
    attention: bool
    gradient: bool
    by_class: bool = True
    passes: int | str = 0


METHODS = {
    method.name: method
    for method in (
        Method(
            name="presence",
            summary="how much the score falls when all layers attend to the patch a little less; signed",
            attention=True,
            gradient=True,
        ),
        Method(
            name="gradient_rollout",
            summary="rollout of attention weighted by the gradient of the class: what spoke for this class",
            attention=True,
            gradient=True,
        ),
        Method(
            name="relevance",
            summary="the same weights, added up layer by layer instead of mixed: what spoke for this class",
            attention=True,
            gradient=True,
        ),
        Method(
            name="rollout",
            summary="attention rollout: what the head could see, whatever the class",
            attention=True,
            gradient=False,
            by_class=False,
        ),
        Method(
            name="rollout_literature",
            summary="rollout as published: the identity is added before rows are normalised",
            attention=True,
            gradient=False,
            by_class=False,
        ),
        Method(
            name="attention",
            summary="attention of one layer, and of one head if asked; no skip connections",
            attention=True,
            gradient=False,
            by_class=False,
        ),
        Method(
            name="gradcam",
            summary="tokens that enter one layer's attention, channels weighted by the gradient of the class",
            attention=True,
            gradient=True,
        ),
        Method(
            name="gradient_input",
            summary="size of gradient times input, per patch; works without attention, noisy",
            attention=False,
            gradient=True,
        ),
        Method(
            name="integrated_gradients",
            summary="gradient times input, averaged on the way from a grey image; signed, sums to the score's difference",
            attention=False,
            gradient=False,
            passes=32,
        ),
        Method(
            name="smoothgrad",
            summary="size of the gradient, averaged over noisy copies of the image",
            attention=False,
            gradient=False,
            passes=16,
        ),
        Method(
            name="occlusion",
            summary="fall of the score when one patch is taken away; one pass per patch",
            attention=False,
            gradient=False,
            passes="n",
        ),
        Method(
            name="rise",
            summary="score of random halves of the patches, averaged over those that hold a patch",
            attention=False,
            gradient=False,
            passes=256,
        ),
    )
}
AUTO_METHOD = "auto"
#: What auto means: with attention; the same for a segmenter and where options of rollouts are given; and without attention.
BEST, BEST_WALK, BEST_WITHOUT_ATTENTION = "presence", "gradient_rollout", "gradient_input"


def find_method(name: str, *, attention: bool, walk: bool = False, trouble: str = "") -> Method:
    """The method of that name; ``auto`` is presence, gradient_rollout or gradient_input.

    Args:
        name: a key of METHODS or ``auto``.
        attention: whether the model has attention that can be traced.
        walk: whether auto should walk through the layers: a segmenter, or options that rollouts alone have.
        trouble: why it has none although it has attention.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: it needs attention and the model has none.
    """
    check_method(name)
    if name == AUTO_METHOD:
        name = (BEST_WALK if walk else BEST) if attention else BEST_WITHOUT_ATTENTION
    method = METHODS[name]
    if method.attention and not attention:
        others = ", ".join(other.name for other in METHODS.values() if not other.attention)
        reason = f": {trouble}" if trouble else ""
        message = f"method {name!r} needs attention, and this model has none that can be traced{reason}"
        raise UsageError(message, hint=f"use one of: {others}")
    return method


def check_method(name: str) -> None:
    """Refuse a name that is no method.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name != AUTO_METHOD and name not in METHODS:
        raise UnknownNameError("explanation method", name, [AUTO_METHOD, *METHODS])
