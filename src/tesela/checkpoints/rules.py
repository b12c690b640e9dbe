"""Two-way rules between our tensor names and another program's, with transformations.

A rule speaks of one of our tensors, for every block at once through ``{i}``. Most are renamed; our fused qkv
is joined from three and split into three again. A foreign name that no rule knows is an error, never dropped
in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _split(tensor: Tensor, count: int) -> Sequence[Tensor]:
    return tensor.chunk(count) if count > 1 else [tensor]


#: Names beside quantised weights: of bitsandbytes, GPTQ, AWQ, compressed-tensors and float8.
_QUANTISED = re.compile(
    r"\.(absmax|quant_map|nested_absmax|quant_state\..*|SCB|weight_format|qweight|qzeros|g_idx|weight_packed"
    r"|weight_scale(_inv)?|weight_shape)$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Rule from foreign tensors to one of ours, and back.

    Attributes:
        own: our name; ``{i}`` is the block.
        foreign: the other program's names, in the order of joining.
        join: foreign tensors to ours.
        split: our tensor to as many foreign ones.
    """

    own: str
    foreign: tuple[str, ...]
    join: Callable[[Sequence[Tensor]], Tensor] = _join
    split: Callable[[Tensor, int], Sequence[Tensor]] = _split


def layer(own: str, *foreign: str) -> tuple[Rule, Rule]:
    """The rules of a weight and its bias."""
    weight, bias = (
        Rule(own=f"{own}.{kind}", foreign=tuple(f"{name}.{kind}" for name in foreign))
        for kind in ("weight", "bias")
    )
    return weight, bias


def to_own(foreign: Mapping[str, Tensor], rules: Sequence[Rule], *, source: str) -> Tensors:
    """Foreign tensors under our names.

    Raises:
        WeightsError: naming tensors that no rule knows, that have lost their partners, or whose shapes do not
            go together.
    """
    rest, own = dict(foreign), Tensors()
    for rule, block in _expanded(rules, foreign, lambda rule: rule.foreign[0]):
        names = [name.format(i=block) for name in rule.foreign]
        missing = [name for name in names if name not in rest]
        if missing:
            raise WeightsError(
                f"{source} lacks {', '.join(missing)}", hint="the file is incomplete; download it again"
            )
        parts = {name: rest.pop(name) for name in names}
        try:
            own[rule.own.format(i=block)] = rule.join(list(parts.values()))
        except (RuntimeError, IndexError, ValueError):
            raise WeightsError(
                f"{source} has tensors of other shapes than expected: {some(parts)}", hint=_OTHER
            ) from None
    if rest:
        raise WeightsError(
            f"{source} has tensors that are not known: {some(rest)}", hint="it may be of another architecture"
        )
    return own


def to_foreign(own: Mapping[str, Tensor], rules: Sequence[Rule], *, target: str) -> Tensors:
    """Our tensors under foreign names, contiguous.

    Raises:
        WeightsError: naming tensors that the other program has no name for.
    """
    rest, foreign = dict(own), Tensors()
    for rule, block in _expanded(rules, own, lambda rule: rule.own):
        parts = rule.split(rest.pop(rule.own.format(i=block)), len(rule.foreign))
        foreign |= {
            name.format(i=block): part.contiguous() for name, part in zip(rule.foreign, parts, strict=True)
        }
    if rest:
        raise WeightsError(
            f"{target} has no place for {some(rest)}",
            hint="this option of the model cannot be exported there",
        )
    return foreign


def _expanded(
    rules: Sequence[Rule], names: Mapping[str, Tensor], key: Callable[[Rule], str]
) -> Iterator[tuple[Rule, int]]:
    """Each rule once for every block it finds in ``names``."""
    for rule in rules:
        pattern = re.compile(re.escape(key(rule)).replace(r"\{i\}", r"(\d+)"))
        for found in [match for name in names if (match := pattern.fullmatch(name))]:
            yield rule, int(found[1]) if pattern.groups else 0


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str) -> None:
    """Compare names and shapes; ``expected`` may lie on the meta device.

    Raises:
        WeightsError: listing by name and shape what is missing, not known, or of another shape.
    """
    misshaped = [
        f"{name} ({_size(found[name])} instead of {_size(tensor)})"
        for name, tensor in sorted(expected.items())
        if name in found and found[name].shape != tensor.shape
    ]
    faults = [
        f"missing: {some({name: expected[name] for name in expected.keys() - found.keys()})}"
        if expected.keys() - found.keys()
        else "",
        f"not known: {some({name: found[name] for name in found.keys() - expected.keys()})}"
        if found.keys() - expected.keys()
        else "",
        f"of another shape: {_first(misshaped)}" if misshaped else "",
    ]
    if any(faults):
        raise WeightsError(
            f"{source} does not fit: " + "; ".join(fault for fault in faults if fault), hint=_OTHER
        )


def check_quantised(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights that were quantised, which their values alone do not say.

    Raises:
        WeightsError: naming one of them.
    """
    for name, tensor in tensors.items():
        small = tensor.element_size() == 1 and tensor.dtype != torch.bool  # integers, and float8
        if _QUANTISED.search(name) or (name.endswith("weight") and small):
            raise WeightsError(
                f"{source} holds quantised weights ({name}), which are not read",
                hint="give the model they were made of, in float32, float16 or bfloat16",
            )


def check_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights that hold NaN or infinite values.

    Raises:
        WeightsError: naming the tensors and how many of their values are not finite.
    """
    bad = {
        name: int((~tensor.isfinite()).sum())
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }
    named = [
        f"{name} ({count} of {tensors[name].numel()} values)" for name, count in sorted(bad.items()) if count
    ]
    if named:
        raise WeightsError(
            f"{source} holds values that are NaN or infinite: {_first(named)}",
            hint="the file is damaged, or its training diverged",
        )


def check_stated(
    found: Mapping[str, Any], stated: Mapping[str, Any], names: Mapping[str, str], source: str
) -> None:
    """Refuse a config that contradicts the tensors.

    Args:
        found: fields of ours.
        stated: their config.
        names: theirs by ours, of values that are compared.
        source: for messages.

    Raises:
        WeightsError: naming the first one that differs.
    """
    for own, theirs in names.items():
        value, expected = stated.get(theirs), found[own]
        if value is None:
            continue
        several = isinstance(expected, tuple)
        wanted = tuple(value) if isinstance(value, (list, tuple)) else value
        wanted = (value,) * len(expected) if several and wanted is value else wanted
        same = wanted == expected or (own == "mlp_ratio" and not several and abs(wanted - expected) < 1e-9)
        if not same:
            raise WeightsError(
                f"{source}: config.json states {theirs}={value!r}, the weights have {expected!r}",
                hint=_TOGETHER,
            )


def some(tensors: Mapping[str, Tensor]) -> str:
    """The first few names with their shapes, for a message."""
    return _first([f"{name} ({_size(tensors[name])})" for name in sorted(tensors)])


_TOGETHER = "use files that belong together"
_OTHER = "the weights are of another model or configuration; use the files that were written together"


def _first(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _size(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"
