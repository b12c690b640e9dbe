"""Table of attribution methods, without torch.

A method is a function of a ``Request`` in a module of its own and one row here. Other distributions register
rows of the kind ``method``, with these facts, under the entry point group ``tesela.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tesela.core.errors import UnknownNameError, UsageError
from tesela.core.registry import entries, register


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to make a heat map.

    Attributes:
        name: what users type.
        summary: one line for lists.
        load: imports and returns the function: a ``Request`` to (B, T, Hp, Wp) values of patches and (B, T)
            prefix mass.
        attention: whether the model must have attention that can be traced.
        gradient: whether it differentiates the captured pass.
        by_class: whether the map depends on the class; if not, it is the same for every class of a
            classifier.
        passes: forward passes beyond the captured one, about; ``n`` where it grows with the number of
            patches.
    """

    name: str
    summary: str
    load: Callable[[], Any]
    attention: bool
    gradient: bool
    by_class: bool = True
    passes: int | str = 0


_BY_ATTENTION = {"attention": True, "gradient": False, "by_class": False}
_BY_GRADIENT = {"attention": True, "gradient": True}
_WITHOUT_ATTENTION = {"attention": False, "gradient": False}


def _row(name: str, place: str, facts: Mapping[str, Any], summary: str) -> None:
    register("method", name, target=f"tesela.attribution.methods.{place}", summary=summary, facts=facts)


_row(
    "presence",
    "presence:presence",
    _BY_GRADIENT,
    "how much the score falls when all layers attend to the patch a little less; signed",
)
_row(
    "surrogate",
    "surrogate:surrogate",
    {**_BY_GRADIENT, "passes": 16},
    "log-odds that each patch adds, fitted to halves of the patches around presence; signed",
)
_row(
    "gradient_rollout",
    "gradient_rollout:gradient_rollout",
    _BY_GRADIENT,
    "rollout of attention weighted by the gradient of the class: what spoke for this class",
)
_row(
    "relevance",
    "relevance:relevance",
    _BY_GRADIENT,
    "the same weights, added up layer by layer instead of mixed: what spoke for this class",
)
_row(
    "rollout",
    "attention:rollout",
    _BY_ATTENTION,
    "attention rollout: what the head could see, whatever the class",
)
_row(
    "rollout_literature",
    "attention:rollout_literature",
    _BY_ATTENTION,
    "rollout as published: the identity is added before rows are normalised",
)
_row(
    "attention",
    "attention:attention",
    _BY_ATTENTION,
    "attention of one layer, and of one head if asked; no skip connections",
)
_row(
    "gradcam",
    "gradcam:gradcam",
    _BY_GRADIENT,
    "tokens that enter one layer's attention, channels weighted by the gradient of the class",
)
_row(
    "gradient_input",
    "input_gradient:gradient_input",
    {**_WITHOUT_ATTENTION, "gradient": True},
    "size of gradient times input, per patch; works without attention, noisy",
)
_row(
    "integrated_gradients",
    "integrated_gradients:integrated_gradients",
    {**_WITHOUT_ATTENTION, "passes": 32},
    "gradient times input, averaged on the way from a grey image; signed, sums to the score's difference",
)
_row(
    "smoothgrad",
    "smoothgrad:smoothgrad",
    {**_WITHOUT_ATTENTION, "passes": 16},
    "size of the gradient, averaged over noisy copies of the image",
)
_row(
    "occlusion",
    "occlusion:occlusion",
    {**_WITHOUT_ATTENTION, "passes": "n"},
    "fall of the score when one patch is taken away; one pass per patch",
)
_row(
    "rise",
    "rise:rise",
    {**_WITHOUT_ATTENTION, "passes": 256},
    "score of random halves of the patches, averaged over those that hold a patch",
)

AUTO_METHOD = "auto"
#: Meaning of auto: with attention; where few patches can be taken away; for a segmenter and where options of
#: rollouts are given; and without attention.
BEST, BEST_OF_FEW, BEST_WALK, BEST_WITHOUT_ATTENTION = (
    "presence",
    "surrogate",
    "gradient_rollout",
    "gradient_input",
)
#: Up to so many patches, ``surrogate`` beats ``presence`` for the price of 16 passes (docs/faithfulness.md).
FEW_PATCHES = 64


def methods() -> dict[str, Method]:
    """All methods by name."""
    return {
        entry.name: Method(name=entry.name, summary=entry.summary, load=entry.load, **entry.facts)
        for entry in entries("method")
    }


def find_method(
    name: str, *, attention: bool, walk: bool = False, few: bool = False, trouble: str = ""
) -> Method:
    """The method of that name; ``auto`` is presence, surrogate, gradient_rollout or gradient_input.

    Args:
        name: one of ``methods()`` or ``auto``.
        attention: whether the model has attention that can be traced.
        walk: whether auto should walk through the layers: a segmenter, or options that rollouts alone have.
        few: whether auto can take patches away, and there are few.
        trouble: why it has none although it has attention.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: it needs attention and the model has none.
    """
    check_method(name)
    if name == AUTO_METHOD:
        best = BEST_WALK if walk else BEST_OF_FEW if few else BEST
        name = best if attention else BEST_WITHOUT_ATTENTION
    method = methods()[name]
    if method.attention and not attention:
        others = ", ".join(other.name for other in methods().values() if not other.attention)
        reason = f": {trouble}" if trouble else ""
        message = f"method {name!r} needs attention, and this model has none that can be traced{reason}"
        raise UsageError(message, hint=f"use one of: {others}")
    return method


def check_method(name: str) -> None:
    """Refuse a name that is no method.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name != AUTO_METHOD and name not in methods():
        raise UnknownNameError("explanation method", name, [AUTO_METHOD, *methods()])
