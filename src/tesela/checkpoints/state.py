"""Tensors of one network in what a training program saved, under their own names.

Wrappers (``torch.compile``, data parallelism, Lightning, a backbone inside of another module) put a prefix
before every name. One that stands before all of a known network is taken off and said; where two networks or
tensors of something else are found, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

#: Where training programs keep the weights inside what they save, best first.
_NESTS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict"),
    *("model_state", "model", "module", "teacher", "net", "network", "weights", "params"),
)
#: Modules that wrap others and may stand anywhere in a name.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: Tensors that belong to pre-training or training beside a network: projections, losses, running scores.
_BESIDE = re.compile(
    r"n_averaged|(dino_|ibot_)?head\.(mlp|last_layer)\..*|(head\.)?prototypes\..*"
    r"|\w*(criterion|loss|metric|metrics|accuracy|auroc|confusion)\w*\..*"
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors of one network, as read from files.

    Attributes:
        tensors: by name.
        files: they were in.
        notes: for people: what was taken, taken off or left aside.
        facts: what the training program said of the model, in the form of timm's config.json.
    """

    tensors: Tensors
    files: list[Path] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def weights_in(found: Any, path: Path) -> Weights:
    """The weights in what was saved: a state dict, or a training state that holds one.

    Raises:
        WeightsError: there are no tensors by name, or several networks of which none is the usual one.
    """
    facts, notes = _facts(found), []
    where: list[str] = []
    while (nest := _nest(found, path)) is not None:
        aside = [str(name) for name in found if name != nest]
        if aside:
            notes.append(f"the weights are those in {nest!r}; left aside: {', '.join(aside)}")
        where.append(nest)
        found = found[nest]
        facts = facts or _facts(found)
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(
            f"{path} holds a {type(found).__name__} and no tensors by name",
            hint="give a file with a state dict",
        )
    odd = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(
            f"{path} holds things that are no tensors: {', '.join(odd[:6])}", hint="save the state dict alone"
        )
    tensors = {str(name): tensor.detach() for name, tensor in found.items()}
    return Weights(tensors=tensors, files=[path], notes=tuple(notes), facts=facts)


def _nest(found: Any, path: Path) -> str | None:
    """The key of the weights in a training state; None where ``found`` is none."""
    if not isinstance(found, Mapping):
        return None
    known = next((name for name in _NESTS if _holds(found.get(name))), None)
    if known is not None or any(isinstance(value, Tensor) for value in found.values()):
        return known
    holders = [str(name) for name, value in found.items() if _holds(value)]
    if len(holders) > 1:
        raise WeightsError(
            f"{path} holds several state dicts: {', '.join(holders[:6])}",
            hint=f"save the one that is wanted alone: {alone(path, holders[0])}",
        )
    return holders[0] if holders else None


def _holds(value: Any) -> bool:
    """Whether it is a state dict, or a mapping with one in a usual place."""
    if not isinstance(value, Mapping) or not value:
        return False
    return any(isinstance(one, Tensor) for one in value.values()) or any(
        _holds(value.get(name)) for name in _NESTS
    )


def alone(path: Path, key: str) -> str:
    """A command that saves one part of a training state alone."""
    out = path.with_name(f"{path.name.split('.')[0]}-{key}.pth")
    return (
        f"python -c \"import torch; torch.save(torch.load('{path}', map_location='cpu', "
        f"weights_only=False)['{key}'], '{out}')\""
    )


def _facts(found: Any) -> dict[str, Any]:
    """What timm's train.py says of its model beside the weights: its name and its arguments."""
    if not isinstance(found, Mapping) or not isinstance(found.get("arch"), str):
        return {}
    options = getattr(found.get("args"), "__dict__", {})
    given, pool = options.get("model_kwargs"), options.get("gp")
    facts: dict[str, Any] = {"architecture": found["arch"]}
    if isinstance(given, Mapping):
        plain = (str, int, float, bool, list, tuple, type(None))
        facts["model_args"] = {
            str(name): value if isinstance(value, plain) else str(value) for name, value in given.items()
        }
    return facts | ({"global_pool": pool} if isinstance(pool, str) else {})


def own_names(found: Weights, anchor: str, *, prefix: str = "") -> Weights:
    """Tensors under the names that their network has by itself.

    Args:
        found: as read.
        anchor: the end of a name that every network of the kind has once.
        prefix: what stands before it in the network's own names.

    Raises:
        WeightsError: there are two such networks, or tensors outside of it that are not known.
    """
    bare = {_WRAPPERS.sub("", name): tensor for name, tensor in found.tensors.items()}
    notes = list(found.notes)
    if len(bare) < len(found.tensors):
        bare = dict(found.tensors)
    elif bare.keys() != found.tensors.keys():
        notes.append("_orig_mod. and other wrappers' parts of the names were taken off")
    ends = re.compile(rf"(?P<before>(?:.*\.)?){re.escape(prefix + anchor)}")
    before = sorted({match["before"] for name in bare if (match := ends.fullmatch(name))})
    if before in ([], [""]):
        return replace(found, tensors=bare, notes=tuple(notes))
    if len(before) > 1:
        named = ", ".join(repr(name) for name in before)
        raise WeightsError(
            f"the checkpoint holds {len(before)} networks, under {named}",
            hint="save the tensors of the one that is wanted alone, without the prefix before their names",
        )
    outer = before[0]
    inside = {name.removeprefix(outer): tensor for name, tensor in bare.items() if name.startswith(outer)}
    rest = sorted(name for name in bare if not name.startswith(outer))
    strange = [name for name in rest if not _BESIDE.fullmatch(_without_head(name, outer))]
    if strange:
        raise WeightsError(
            f"the network's tensors have the prefix {outer!r}, and these have not: {', '.join(strange[:6])}"
            + (f" and {len(strange) - 6} more" if len(strange) > 6 else ""),
            hint=f"save the tensors under {outer!r} alone if the others have no part in the network",
        )
    notes.append(f"the prefix {outer!r} before the names was taken off")
    if rest:
        notes.append(f"left aside, since it is no part of the network: {', '.join(rest[:6])}")
    return replace(found, tensors=inside, notes=tuple(notes))


def _without_head(name: str, outer: str) -> str:
    """A name without the parts of ``outer`` that it shares from the start."""
    for part in outer.split("."):
        if not part or not name.startswith(f"{part}."):
            return name
        name = name.removeprefix(f"{part}.")
    return name
