"""Positions that a graph resizes itself, by onnxruntime, against float64 written out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.exporters.graph import silenced
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.position.embedding import make_positions

OWN: Grid = (7, 5)
#: Larger and smaller, square and not, its own, and a single row.
GRIDS: list[Grid] = [(7, 5), (14, 14), (3, 3), (4, 9), (10, 2), (1, 6)]
MODES = ["bicubic", "bicubic_antialias", "bicubic_offset", "bilinear"]


def keys(distance: float, a: float) -> float:
    """Keys' cubic kernel (1981)."""
    x = abs(distance)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def weights(old: int, new: int, mode: str, *, same: bool) -> NDArray[np.float64]:
    """(new, old) for one axis; ``same`` where neither axis changes, which no mode resamples."""
    matrix = np.zeros((new, old))
    for target in range(new):
        if mode == "bicubic_antialias":  # the kernel is as wide as the places that fall into one
            wide = max(old / new, 1.0)
            centre = (target + 0.5) * old / new
            for place in range(old):
                matrix[target, place] = keys((place + 0.5 - centre) / wide, -0.5)
            matrix[target] /= matrix[target].sum()
            continue
        centre = (target + 0.5) * old / (new + (0.1 if mode == "bicubic_offset" else 0.0)) - 0.5
        if mode == "bilinear":
            low = math.floor(max(centre, 0.0))
            share = max(centre, 0.0) - low
            matrix[target, min(low, old - 1)] += 1 - share
            matrix[target, min(low + 1, old - 1)] += share
            continue
        low = math.floor(centre)
        for tap in range(low - 1, low + 3):
            matrix[target, min(max(tap, 0), old - 1)] += keys(centre - tap, -0.75)
    return np.eye(old) if same else matrix


class Table(nn.Module):
    """Images (1, 1, rows, columns) to the table of a grid of that size."""

    def __init__(self, positions: Any) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, images: Tensor) -> Tensor:
        table: Tensor = self.positions.at((images.shape[2], images.shape[3]))
        return table


def graph(positions: Any, path: Path) -> onnxruntime.InferenceSession:
    """One graph for all grids, made as that of a model."""
    positions.any_grid = True
    sides = {axis: torch.export.Dim(name, min=1) for axis, name in ((2, "rows"), (3, "columns"))}
    example = torch.zeros(1, 1, OWN[0] + 4, OWN[1] + 3)
    with silenced():
        traced = torch.export.export(Table(positions), (example,), dynamic_shapes=(sides,), strict=False)
        program = torch.onnx.export(traced, (example,), opset_version=18, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["learned", "learned2d"])
def test_one_graph_resizes_positions_exactly(kind: str, mode: str, tmp_path: Path) -> None:
    """At six grids; PyTorch's own antialiased operator is off where an axis has one place."""
    positions: Any = make_positions(kind, grid=OWN, width=6, prefix=1, mode=mode)
    positions.std = 1.0
    initialise(positions, torch.Generator().manual_seed(0))
    whole = positions.at(OWN).detach().double().numpy()
    table = whole[0, 1:].reshape(*OWN, 6)
    session = graph(positions, tmp_path / "table.onnx")
    (name,) = [one.name for one in session.get_inputs()]
    for grid in GRIDS:
        down, right = (weights(old, new, mode, same=grid == OWN) for old, new in zip(OWN, grid, strict=True))
        wanted = np.einsum("yr,xc,rcd->yxd", down, right, table).reshape(-1, 6)
        (found,) = session.run(None, {name: np.zeros((1, 1, *grid), np.float32)})
        np.testing.assert_array_equal(found[0, :1], whole[0, :1].astype(np.float32))
        np.testing.assert_allclose(found[0, 1:], wanted, atol=2e-5, err_msg=f"{grid}")
