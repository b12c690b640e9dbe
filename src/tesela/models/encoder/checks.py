"""Checks of an encoder's configuration that concern several of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tesela.core.errors import ConfigError

if TYPE_CHECKING:
    from tesela.models.encoder.config import EncoderConfig


def check_special_tokens(config: EncoderConfig) -> None:
    """Refuse tokens beside the class token that no pool reads.

    Raises:
        ConfigError: it says what would fit.
    """
    if config.distillation and config.pool != "class":
        raise ConfigError("a distillation token needs the class token", hint="set pool=class")
    if config.class_tokens > 1 and config.pool != "class":
        raise ConfigError(
            f"class_tokens={config.class_tokens} needs a pool that reads them", hint="set pool=class"
        )
    if config.distillation and config.class_tokens > 1:
        raise ConfigError(
            "a distillation token goes with one class token, not with several", hint="set class_tokens=1"
        )


def check_positions(config: EncoderConfig) -> None:
    """Refuse positions that do not fit the width, the attention or the depth.

    Raises:
        ConfigError: it says what would fit.
    """
    needs = {
        "learned2d": (config.width, 2, "width"),
        "sincos2d": (config.width, 4, "width"),
        "rotary": (config.per_head, 4, "width per head"),
        "learned_rotary": (config.per_head, 4, "width per head"),
    }
    value, divisor, name = needs.get(config.position, (0, 1, ""))
    if value % divisor:
        raise ConfigError(
            f"{config.position} positions need a {name} divisible by {divisor}, not {value}",
            hint="change width, heads or position",
        )
    if config.position_at != "input" and config.position not in ("learned", "learned2d", "sincos2d"):
        raise ConfigError(
            f"position_at={config.position_at} adds positions before every block, and {config.position} "
            "adds none",
            hint=(
                "position_at block or shared goes with position learned, learned2d or sincos2d; "
                "relative, rotary and none with input"
            ),
        )
    if config.position == "offset_bias" and (config.attention not in ("full", "wide") or not config.prefix):
        raise ConfigError(
            "offset_bias has numbers for pairs with a prefix token, and knows no windows",
            hint="use attention full or wide, and a class token or registers",
        )
    if min(config.rotary_grid) < 1 or config.rotary_base <= 0:
        raise ConfigError(
            "rotary_grid and rotary_base must be positive", hint="16 16 and 100 are usual values"
        )
    if config.position == "relative" and not any(config.relative(index) for index in range(config.depth)):
        raise ConfigError(
            "the class token has no offsets, and one block has no other reader",
            hint="use depth 2 or more, or pool=mean",
        )
