"""Fields of a Swin that its tensors show."""

from __future__ import annotations

from typing import Any

from tesela.checkpoints.swin.names import Program, swin_names
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors


def swin_fields(tensors: Tensors, program: Program, *, prefix: str, source: str) -> dict[str, Any] | None:
    """Fields of our configuration but for the image's size; None where the tensors are no Swin's.

    Raises:
        WeightsError: a Swin that is not computed here.
    """
    names = swin_names(program)
    stem = tensors.get(f"{prefix}{names.patches}.weight")
    depths = _depths(tensors, f"{prefix}{names.body}", names.table)
    if stem is None or stem.ndim != 4 or not depths:
        return None
    if stem.shape[2] != stem.shape[3]:
        raise WeightsError(
            f"{source}: a Swin with patches of {stem.shape[2]}x{stem.shape[3]} is not computed here",
            hint="one with square patches is",
        )
    firsts = [f"{prefix}{names.body}.{stage}.blocks.0." for stage in range(len(depths))]
    tables = [tensors[f"{first}{names.table}"] for first in firsts]
    hidden = [_of(tensors, f"{first}{names.mlp[0]}.weight", source) for first in firsts]
    widths = tuple(int(weight.shape[1]) for weight in hidden)
    ratios = [len(weight) / width for weight, width in zip(hidden, widths, strict=True)]
    if any(int(ratios[0] * width) != len(weight) for weight, width in zip(hidden, widths, strict=True)):
        raise WeightsError(
            f"{source}: a Swin whose stages have other mlp_ratios, {ratios}, is not computed here",
            hint="one with the same in all stages is",
        )
    bias = f"{firsts[0]}{names.qkv[0]}.bias" in tensors
    joint = sum(len(_of(tensors, f"{firsts[0]}{name}.weight", source)) for name in names.qkv)
    if joint != 3 * widths[0]:
        raise WeightsError(
            f"{source}: a Swin whose heads together are {joint // 3} wide beside tokens of {widths[0]} is "
            "not computed here",
            hint="one without head_dim is",
        )
    return {
        "channels": int(stem.shape[1]),
        "patch": int(stem.shape[2]),
        "widths": widths,
        "depths": depths,
        "heads": tuple(int(table.shape[1]) for table in tables),
        "windows": tuple(_window(len(table), source) for table in tables),
        "mlp_ratio": ratios[0],
        "qkv_bias": bias,
    }


def _depths(tensors: Tensors, body: str, table: str) -> tuple[int, ...]:
    depths: list[int] = []
    while f"{body}.{len(depths)}.blocks.0.{table}" in tensors:
        count = 0
        while f"{body}.{len(depths)}.blocks.{count}.{table}" in tensors:
            count += 1
        depths.append(count)
    return tuple(depths)


def _of(tensors: Tensors, name: str, source: str) -> Any:
    if name not in tensors or tensors[name].ndim != 2:
        raise WeightsError(f"{source} lacks {name}", hint="the file is incomplete; download it again")
    return tensors[name]


def _window(rows: int, source: str) -> int:
    """Side of the window that a table of offsets with so many rows belongs to."""
    side = round(rows**0.5)
    if side * side != rows or side % 2 == 0:
        raise WeightsError(
            f"{source}: a Swin with {rows} offsets, whose windows are not square, is not computed here",
            hint="one with square windows is",
        )
    return int(side + 1) // 2
