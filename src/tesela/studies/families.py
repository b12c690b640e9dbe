"""Representatives of the families that studies compare, of about equal cost at a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tesela.core.errors import ConfigError
from tesela.models.catalog import resolve

#: By largest side in pixels: name and settings. At 32 px each costs 0.48 to 0.53 GFLOPs an image.
REPRESENTATIVES: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {
    "vit": {16: ("vit_nano", {}), 64: ("vit_lite7_p4", {}), 384: ("vit_ti16", {})},
    "hybrid": {
        16: ("r11_vit_mini4", {"width": 64, "heads": 4, "depth": 2, "width_factor": 0.25, "norm_groups": 16}),
        64: ("r20_vit_mini4", {}),
        384: ("r_vit_ti16", {}),
    },
    "cct": {16: ("cct_2_3x2_32", {}), 64: ("cct_6_3x2_32", {})},
    "cnn": {
        16: ("resnet20_small", {}),
        64: ("resnet56_small", {"width_factor": 0.34375}),
        384: ("resnet18", {}),
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model that takes part in a study.

    Attributes:
        word: what it is called on the page and in names of folders.
        model: its name in the catalogue.
        net: settings over those of the catalogue.
    """

    word: str
    model: str
    net: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """As settings of a run."""
        return {"model": self.model, **{f"net.{name}": value for name, value in self.net.items()}}


def family_candidates(words: tuple[str, ...], side: int) -> list[Candidate]:
    """The models of a study; all families that have one for such images where none is named.

    Raises:
        UnknownNameError: a word is neither a family nor a model.
        ConfigError: a family has no model for such images, or a setting does not exist.
    """
    return [family_candidate(word, side) for word in words or _families(side)]


def family_candidate(word: str, side: int) -> Candidate:
    """One model by the word that names it: ``vit``, ``vit_nano`` or ``vit_nano:depth=2:width=32``.

    Raises:
        UnknownNameError: it is neither a family nor a model.
        ConfigError: the family has no model for such images, or a setting does not exist.
    """
    name, *settings = word.split(":")
    net = dict(_setting(setting, word) for setting in settings)
    if name in REPRESENTATIVES:
        sides = REPRESENTATIVES[name]
        chosen = next((sides[most] for most in sorted(sides) if side <= most), None)
        if chosen is None:
            raise ConfigError(
                f"there is no {name} for images of {side} px",
                hint=f"leave it out: --models {','.join(_families(side))}, or name a model of tesela models",
            )
        name, net = chosen[0], {**chosen[1], **net}
    resolve(name, num_classes=2, overrides=net)  # refuses names and values that do not exist
    return Candidate(word=word, model=name, net=net)


def _families(side: int) -> tuple[str, ...]:
    return tuple(name for name, sides in REPRESENTATIVES.items() if side <= max(sides)) or ("vit_ti16",)


def _setting(text: str, word: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ConfigError(
            f"{word} is no model with settings", hint="write them as --models vit_nano:depth=2:width=32"
        )
    return name, yaml.safe_load(value)
