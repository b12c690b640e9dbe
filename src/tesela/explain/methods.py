"""The methods by name, without torch: what the command line lists and what an error offers.

What a method does is in the module of its name (both rollouts share ``rollout``); how it is called is in ``explanation``.
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
        gradient: whether it differentiates the class's logit; if not, the map is the same for every class.
    """

    name: str
    summary: str
    attention: bool
    gradient: bool


METHODS = {
    method.name: method
    for method in (
        Method(
            name="gradient_rollout",
            summary="rollout of attention weighted by the gradient of the class: what spoke for this class",
            attention=True,
            gradient=True,
        ),
        Method(name="rollout", summary="attention rollout: what the head could see, whatever the class", attention=True, gradient=False),
        Method(
            name="rollout_literature",
            summary="rollout as published: the identity is added before rows are normalised",
            attention=True,
            gradient=False,
        ),
        Method(
            name="gradient_input",
            summary="size of gradient times input, per patch; works without attention, noisy",
            attention=False,
            gradient=True,
        ),
    )
}
AUTO = "auto"


def find_method(name: str, *, attention: bool) -> Method:
    """The method of that name; ``auto`` is gradient_rollout, or gradient_input where there is no attention.

    Args:
        name: a key of METHODS or ``auto``.
        attention: whether the model has attention that can be traced.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: it needs attention and the model has none.
    """
    check_method(name)
    if name == AUTO:
        name = "gradient_rollout" if attention else "gradient_input"
    method = METHODS[name]
    if method.attention and not attention:
        others = ", ".join(other.name for other in METHODS.values() if not other.attention)
        raise UsageError(f"method {name!r} needs attention, and this model has none that can be traced", hint=f"use one of: {others}")
    return method


def check_method(name: str) -> None:
    """Refuse a name that is no method.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name != AUTO and name not in METHODS:
        raise UnknownNameError("explanation method", name, [AUTO, *METHODS])
