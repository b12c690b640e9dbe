"""Options of exported programs, without torch."""

from __future__ import annotations

from dataclasses import dataclass

#: Precisions of programs; with the last one weights alone are int8, and arithmetic is fp32.
PRECISIONS = ("fp32", "bf16", "int8", "int8-weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """Wishes for an exported program."""

    precision: str = "fp32"
    """Of the arithmetic: fp32, bf16, int8; or int8-weights."""
    data: str | None = None
    """Images to calibrate and compare with: a data set, a folder, a pattern; the run's own if None."""
    with_map: bool = False
    """Give the default map and the rollout as further outputs."""
    with_features: bool = False
    """Give what the head reads, an embedding, as a further output."""
    force: bool = False
    """Keep a program that breaks its contract."""
