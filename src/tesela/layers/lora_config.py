"""Settings of low-rank adapters, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from tesela.core.errors import ConfigError

#: The dense layers that can be adapted, by the word that names them, and what such a layer is called in its
#: module.
TARGETS = {"qkv": ("qkv",), "out": ("out",), "mlp": ("expand", "contract")}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685); used with tune=lora."""

    rank: int = 8
    """Rank r of each update."""
    alpha: float = 16.0
    """The update is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is set to zero while training."""
    targets: tuple[str, ...] = ("qkv", "out", "mlp")
    """Which dense layers are adapted: qkv, out (the output of attention), mlp."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        if self.rank < 1:
            raise ConfigError(f"lora.rank must be at least 1, not {self.rank}", hint="8 is usual")
        if self.alpha <= 0:
            raise ConfigError(f"lora.alpha must be above 0, not {self.alpha}", hint="twice the rank is usual")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout must lie in 0..1, not {self.dropout}", hint="0.1 is usual")
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            named = repr(unknown[0]) if unknown else "nothing"
            raise ConfigError(f"lora.targets cannot be {named}", hint=f"give some of {','.join(TARGETS)}")

    @property
    def scale(self) -> float:
        """Factor of the update."""
        return self.alpha / self.rank
