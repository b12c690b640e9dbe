"""Inspection of a model: filters, positions, attention distance, token norms, attention.

All but filters and positions need images. They go through the model one by one, so that memory stays that of
one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed, unwrapped
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.record import Capture
from tesela.core.errors import UsageError
from tesela.inspection.distance import attention_distance, token_rows
from tesela.inspection.filters import Filters, principal_filters
from tesela.inspection.norms import Norms, token_norms
from tesela.inspection.positions import Positions, kind_of, position_kernel, position_tables, similarity
from tesela.layers.grid import Grid

#: Images whose attention can be browsed, and bytes that this may take in all.
BROWSED, BUDGET = 4, 1_200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Browsable:
    """Attention of some tokens of some images, small enough for a page.

    Attributes:
        queries: the tokens: -1 is the class token, others are patches in raster order.
        maps: (images, L, heads, queries, n), uint8: attention to each patch as a share of its map's largest,
            times 255.
        peak: (images, L, heads, queries), the largest attention to a patch.
    """

    queries: list[int]
    maps: NDArray[np.uint8]
    peak: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Findings of an inspection; None for those that need attention, tokens or images that are not there.

    Attributes:
        filters: principal filters of the first layer.
        grid: rows and columns of patches.
        prefix: tokens before the patches.
        positions: similarity or kernel of positions.
        images: number of images that were looked at.
        distance: (L, heads), mean attention distance in pixels.
        class_attention: (L, heads, n), the class token's attention to patches, mean over images.
        norms: of the tokens after each block.
        browsable: attention of the first images.
    """

    filters: Filters
    grid: Grid
    prefix: int
    positions: Positions | None
    images: int
    distance: NDArray[np.float32] | None
    class_attention: NDArray[np.float32] | None
    norms: Norms | None
    browsable: Browsable | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything by name, for a file."""
        found: dict[str, Any] = {
            "filters": self.filters.images.numpy(),
            "filter_variance": self.filters.variance.numpy(),
        }
        if self.positions is not None:
            found["position_kind"] = np.array(self.positions.kind)
            found["position_similarity"] = (
                None if self.positions.similarity is None else self.positions.similarity.numpy()
            )
            found["position_kernel"] = (
                None if self.positions.kernel is None else self.positions.kernel.numpy()
            )
        found |= {"attention_distance": self.distance, "class_attention": self.class_attention}
        if self.norms is not None:
            found |= {"patch_norms": self.norms.patches.numpy(), "prefix_norms": self.norms.prefix.numpy()}
            found["outliers"] = self.norms.outliers.numpy()
        return {name: value for name, value in found.items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """The numbers that a program may want."""
        found: dict[str, Any] = {
            "grid": list(self.grid),
            "prefix": self.prefix,
            "images": self.images,
            "filters": {"layer": self.filters.name, "explained_variance": _rounded(self.filters.variance)},
            "positions": None if self.positions is None else self.positions.kind,
            "attention_distance": None if self.distance is None else _rounded(self.distance),
        }
        if self.norms is not None:
            found["norms"] = {
                "median": _rounded(self.norms.patches.median(-1).values.mean(0)),
                "largest": _rounded(self.norms.patches.amax((0, 2))),
                "outlier_share": _rounded(self.norms.outliers.float().mean((0, 2))),
            }
        return found


def inspect(model: nn.Module, images: Tensor | None = None) -> Inspection:
    """Look into a classifier.

    Args:
        model: a classifier that can be traced; of others only the filters are shown.
        images: (B, C, H, W), normalised; None leaves out what needs images.

    Raises:
        UsageError: there is no layer that sees pixels.
    """
    network = unwrapped(model)
    filters = principal_filters(network)
    parameter = next(network.parameters())
    config: Any = getattr(network, "config", None)
    size = tuple(images.shape[2:]) if images is not None else getattr(config, "image_size", None)
    if size is None:
        raise UsageError("this model does not say the size of its images", hint="give images")
    blank = parameter.new_zeros(1, filters.images.shape[1], *size)
    with undisturbed(network):
        seen = capture(network, blank, gradient=False)
        if not seen.layers or not _on_one_grid(seen):
            return Inspection(
                filters=filters, grid=seen.grid, prefix=0, positions=None,
                images=0 if images is None else len(images),
                distance=None, class_attention=None, norms=None, browsable=None,
            )  # fmt: skip
        positions = _positions(network, seen)
        found: Mapping[str, Any] = {
            "distance": None,
            "class_attention": None,
            "norms": None,
            "browsable": None,
        }
        if images is not None and len(images):
            found = _of_images(network, images.to(parameter), seen)
    return Inspection(
        filters=filters,
        grid=seen.grid,
        prefix=seen.prefix,
        positions=positions,
        images=0 if images is None else len(images),
        **found,
    )


def _on_one_grid(seen: Capture) -> bool:
    """Whether all attentions are among the same tokens; those of a pyramid are not."""
    count = seen.grid[0] * seen.grid[1] + seen.prefix
    return all(
        layer.places is None and layer.q.shape[2] == layer.k.shape[2] == count for layer in seen.layers
    )


def _positions(model: nn.Module, seen: Capture) -> Positions:
    maps = [similarity(table, seen.grid) for table in position_tables(model, seen.grid)]
    if maps:
        return Positions(kind=kind_of(model), similarity=torch.stack(maps), kernel=None)
    return Positions(
        kind=kind_of(model), similarity=None, kernel=position_kernel(seen.layers, seen.grid, seen.prefix)
    )


def _of_images(model: nn.Module, images: Tensor, seen: Capture) -> dict[str, Any]:
    """What needs images, one image at a time."""
    pitch = images.shape[2] / seen.grid[0], images.shape[3] / seen.grid[1]
    shown = min(len(images), BROWSED)
    queries = browsed_queries(seen, len(seen.layers) * seen.layers[0].q.shape[1], shown)
    distances, looks, norms, rows = [], [], [], []
    for index, image in enumerate(torch.split(images, 1)):
        one = capture(model, image, gradient=False)
        distances.append(attention_distance(one.layers, one.grid, one.prefix, pitch=pitch))
        if one.special:
            looks.append(token_rows(one.layers, [0], one.prefix)[0, :, :, 0])
        norms.append(token_norms(model, image, prefix=one.prefix))
        if index < shown:
            rows.append(
                token_rows(
                    one.layers, [0 if query < 0 else query + one.prefix for query in queries], one.prefix
                )[0]
            )
    whole = torch.stack(rows)
    peak = whole.amax(-1)
    scaled = whole / peak.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    return {
        "distance": torch.stack(distances).mean(0).numpy(),
        "class_attention": torch.stack(looks).mean(0).numpy() if looks else None,
        "norms": Norms(
            **{
                name: torch.cat([getattr(one, name) for one in norms])
                for name in ("patches", "prefix", "outliers")
            }
        ),
        "browsable": Browsable(
            queries=queries, maps=(scaled * 255).round().to(torch.uint8).numpy(), peak=peak.numpy()
        ),
    }


def browsed_queries(seen: Capture, maps: int, images: int) -> list[int]:
    """The class token (-1) and the finest lattice of patches that fits the budget of bytes."""
    rows, columns = seen.grid
    start = [-1] if seen.special else []
    for step in range(1, max(rows, columns) + 1):
        down, right = (range(min(step // 2, side - 1), side, step) for side in (rows, columns))
        lattice = [row * columns + column for row in down for column in right]
        if images * maps * rows * columns * (len(start) + len(lattice)) <= BUDGET:
            return start + lattice
    return start or [rows // 2 * columns + columns // 2]


def _rounded(values: Tensor | NDArray[np.float32]) -> Any:
    return np.round(np.asarray(values, np.float64), 5).tolist()
