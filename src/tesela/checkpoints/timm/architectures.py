"""Architectures of timm: class and arguments that a name stands for, from timm itself.

config.json names an architecture and repeats none of its arguments. The table (``architectures.json``,
written by ``scripts/timm_architectures.py``) holds those of every Vision Transformer of one version of
timm, so that nothing has to be guessed from the name or the tensors. A name that is not in it is refused.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from tesela.core.errors import WeightsError

#: Classes of timm that are computed here; the value of any other says what it computes.
_OTHERS = {
    "NaFlexVit": "patches of any number and ratio",
    "SwinTransformerV2": "scaled cosine attention and a small network for the positions",
    "SwinTransformerV2Cr": "scaled cosine attention and a small network for the positions",
    "VisionTransformerRelPos": "relative positions from a small network",
    "VisionTransformerSAM": "windows, relative positions and a neck of convolutions",
}


class TimmArchitecture(NamedTuple):
    """What a name of timm stands for.

    Attributes:
        kind: its class there.
        arguments: of the class's constructor; a norm is its name and epsilon, another layer its name.
    """

    kind: str
    arguments: dict[str, Any]


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return table


def find_architecture(name: str) -> TimmArchitecture:
    """The class and arguments of a name of timm.

    Args:
        name: as config.json or a training state gives it; a tag behind a dot makes no difference, and
            an older name is taken for the one that timm takes for it.

    Raises:
        WeightsError: it is no Vision Transformer of timm, or one that computes what ours does not.
    """
    table, base = _table(), name.partition(".")[0]
    base = table["renamed"].get(base, base)
    if base not in table["architectures"]:
        raise WeightsError(
            f"the architecture {name!r} is no Vision Transformer of timm {table['timm']}, and what it "
            "computes is not known",
            hint="if it is built like one that timm has, name that one in config.json, with what differs in "
            "model_args",
        )
    kind, arguments = table["architectures"][base]
    if kind in _OTHERS:
        raise WeightsError(
            f"the architecture {name!r} of timm is a {kind}, with {_OTHERS[kind]}, which is not computed "
            "here",
            hint="timm's VisionTransformer, VisionTransformerDistilled, Eva, Beit and SwinTransformer are",
        )
    return TimmArchitecture(kind, dict(arguments))
