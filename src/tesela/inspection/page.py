"""HTML page of ``tesela inspect``: pictures, charts and an attention browser.

Pictures are small PNG files, one pixel for each patch or filter weight, enlarged by the browser without
blurring. The only script draws the attention of the token that is pointed at (``inspect.js``); all else can
be read without it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.attribution.draw.heatmap import colour_table, stretched
from tesela.imaging.color import colour_channels
from tesela.imaging.png import encode_png
from tesela.inspection.inspect import Inspection
from tesela.inspection.norms import Norms
from tesela.inspection.positions import Positions
from tesela.page.charts.figure import charts_row
from tesela.page.charts.line import Series, line_chart
from tesela.page.document import document, render
from tesela.page.section import Section

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAT, SCALE = "inferno", "viridis"
MOST_MAPS = 24
WITHOUT_IMAGES = "This needs images: give --images."


def inspect_page(
    inspection: Inspection, *, name: str, pictures: Sequence[tuple[str, NDArray[np.uint8]]] = ()
) -> str:
    """The whole page.

    Args:
        inspection: the result of ``inspect``.
        name: of the model.
        pictures: name and view (h, w, C), uint8, of the first images of the inspection, in their order.
    """
    count, positions = inspection.images, inspection.positions
    sections = [_filters(inspection)]
    if positions is None:
        sections.append(Section(title="Attention", body="This model has no attention that can be traced."))
    else:
        sections += [
            _positions(positions),
            _distance(inspection),
            _class_token(inspection),
            _browser(inspection, pictures),
            _norms(inspection.norms, prefix=inspection.prefix),
        ]
    folder = files("tesela.inspection")
    return document(
        f"Inside {name}",
        lead=f"{count:,} images went through it." if count else "Without images, only the weights are shown.",
        tiles=_tiles(inspection),
        sections=sections,
        style=(folder / "inspect.css").read_text(encoding="utf-8"),
        script=(folder / "inspect.js").read_text(encoding="utf-8")
        if inspection.browsable and pictures
        else "",
    )


def _tiles(inspection: Inspection) -> Iterable[tuple[str, str, str]]:
    rows, columns = inspection.grid
    prefix = "1 prefix token" if inspection.prefix == 1 else f"{inspection.prefix} prefix tokens"
    yield "Patches", f"{rows} × {columns}", f"and {prefix}"
    if inspection.distance is not None:
        layers, heads = inspection.distance.shape
        yield "Attention", f"{layers} × {heads}", "layers and heads"
        for place, layer in (("first", 0), ("last", -1)):
            reach = inspection.distance[layer].mean()
            yield f"Reach, {place} layer", f"{reach:.1f} px", "mean attention distance"
    shares = inspection.filters.variance
    yield "Filters", f"{shares.sum() * 100:.1f} %", f"of variance in the first {len(shares)}"
    if inspection.norms is not None:
        outliers = inspection.norms.outliers.float().mean()
        yield "Outlier tokens", f"{outliers * 100:.2f} %", "norm above 3 times the median"


def _filters(inspection: Inspection) -> Section:
    filters = inspection.filters
    maps = []
    for image, share in zip(filters.images.numpy(), filters.variance.tolist(), strict=True):
        image = image[: colour_channels(len(image))]  # alpha's part has no colour
        size = float(np.abs(image).max()) or 1.0
        pixels = ((image / size * 0.5 + 0.5) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        maps.append(("filter", encode_png(pixels), f"{share * 100:.1f} %"))
    return Section(
        title="Filters",
        note=f"Principal components of {filters.name}, the strongest first, with their shares of the "
        f"variance; these {len(maps)} hold {filters.variance.sum() * 100:.1f} %.",
        body=_maps("filters", maps),
    )


def _positions(positions: Positions) -> Section:
    if positions.similarity is not None:
        similarity = positions.similarity.numpy()
        chosen = sorted({0, len(similarity) - 1})
        low, high = float(similarity[chosen].min()), float(similarity[chosen].max())
        maps = [
            (
                "similarity of positions",
                _plate(similarity[place], low, high),
                f"Before block {place + 1}" if len(similarity) > 1 else "",
            )
            for place in chosen
        ]
        return Section(
            title="Positions",
            note=f"Position embeddings ({positions.kind}): each small map stands where its patch is and "
            "shows the cosine similarity of its embedding to those of all patches.",
            body=_maps("plate", maps, ends=(f"{low:.2f}", f"{high:.2f}")),
        )
    assert positions.kernel is not None
    kernels = positions.kernel.numpy()
    size = float(np.nanmax(np.abs(kernels))) if np.isfinite(kernels).any() else 0.0
    levels = np.nan_to_num(kernels / (2 * size or 1) + 0.5, nan=0.5)
    maps = [
        ("kernel", encode_png(_coloured(level, SCALE)), f"layer {index}")
        for index, level in enumerate(levels[:MOST_MAPS], 1)
    ]
    return Section(
        title="Positions",
        note=f"There is no table of positions to compare (position: {positions.kind}). Instead: the mean "
        "attention logit of a blank image by the key's offset from the query, which is in the middle.",
        body=_maps("plates", maps, ends=(f"{-size:.2g}", f"{size:.2g}")),
    )


def _distance(inspection: Inspection) -> Section:
    distance = inspection.distance
    if distance is None:
        return Section(title="Attention distance", body=WITHOUT_IMAGES)
    layers, heads = distance.shape
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    dots = Series(
        name="one head",
        points=[(layer + 1.0, float(distance[layer, head])) for layer, head in places],
        tips=[
            f"layer {layer + 1}, head {head + 1}: {distance[layer, head]:.1f} px" for layer, head in places
        ],
    )
    chart = line_chart(
        [_line("mean of the layer", distance.mean(1), 2), dots],
        title="Pixels",
        x_label="layer",
        whole=True,
        low=0.0,
        margin=0.5,
    )
    return Section(
        title="Attention distance",
        note="Distance from a patch to the patches it attends to, weighted by attention, mean over patches "
        "and images.",
        body=charts_row(chart),
    )


def _class_token(inspection: Inspection) -> Section:
    if inspection.class_attention is None:
        return Section(title="Class token")
    maps = inspection.class_attention.reshape(*inspection.class_attention.shape[:2], *inspection.grid)
    pngs = [[encode_png(_coloured(stretched(one), HEAT)) for one in layer] for layer in maps]
    return Section(
        title="Class token",
        note="Attention of the class token, mean over the images. Rows are layers, columns heads; each map "
        "has its own scale.",
        body=render("tesela.inspection/class_token.html.j2", maps=pngs),
    )


def _browser(inspection: Inspection, pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> Section:
    title, browsable = "Attention of one token", inspection.browsable
    if browsable is None or not pictures:
        return Section(title=title, body=WITHOUT_IMAGES)
    _, layers, heads, _, _ = browsable.maps.shape
    pictures = pictures[: len(browsable.maps)]
    images = [
        {"name": name, "maps": _base64(maps), "peak": [round(float(value), 4) for value in peak.flatten()]}
        for (name, _), maps, peak in zip(pictures, browsable.maps, browsable.peak, strict=False)
    ]
    data = {
        "grid": list(inspection.grid),
        "heads": heads,
        "queries": browsable.queries,
        "images": images,
        "colours": _base64(colour_table(HEAT)),
    }
    views = [{"name": name, "png": encode_png(view)} for name, view in pictures]
    return Section(
        title=title,
        note="Point at a patch, or tap it, to see what that token attends to in each layer (rows) and head "
        "(columns). Each map has its own scale, the largest weight is yellow.",
        body=render("tesela.inspection/browser.html.j2", data=data, views=views, layers=layers),
    )


def _norms(norms: Norms | None, *, prefix: int) -> Section:
    if norms is None:
        return Section(title="Token norms", body=WITHOUT_IMAGES)
    patches, outliers = norms.patches, norms.outliers.float()
    lines = [
        _line("median", patches.median(-1).values.mean(0), 1),
        _line("largest", patches.amax((0, 2)), 2),
        *([_line("first prefix token", norms.prefix[..., 0].mean(0), 3)] if prefix else []),
    ]
    shares = [_line("outliers", outliers.mean((0, 2)) * 100, 2)]
    last = outliers[:, -1]
    return Section(
        title="Token norms",
        note="Patches whose norm is more than 3 times their image's median are where large networks keep "
        "notes: maps show them as specks. "
        f"After the last block, {int(last.sum()):,} of {last.numel():,} patches are outliers.",
        body=charts_row(
            *(
                line_chart(series, title=title, x_label="layer", whole=True, low=0.0)
                for title, series in (("Norm after each block", lines), ("Outliers, % of patches", shares))
            )
        ),
    )


def _line(name: str, values: Any, tone: int) -> Series:
    points = [(index, float(value)) for index, value in enumerate(values, 1)]
    return Series(name=name, points=points, tone=tone)


def _maps(kind: str, maps: Sequence[tuple[str, bytes, str]], *, ends: tuple[str, str] | None = None) -> str:
    """A grid of pictures (title, PNG, caption), above a colour scale if its ``ends`` are given."""
    scale = ends and {"low": ends[0], "high": ends[1], "png": encode_png(colour_table(SCALE)[None])}
    return render("tesela.inspection/maps.html.j2", kind=kind, maps=maps, scale=scale)


def _plate(maps: NDArray[np.float32], low: float, high: float) -> bytes:
    """(Hp, Wp, h, w) as one picture, a thin transparent line between maps."""
    rows, columns, height, width = maps.shape
    scale, gap = max(1, 28 // max(height, width)), 2
    colours = _coloured((maps - low) / ((high - low) or 1.0), SCALE).repeat(scale, 2).repeat(scale, 3)
    canvas = np.zeros((rows, height * scale + gap, columns, width * scale + gap, 4), np.uint8)
    canvas[:, :-gap, :, :-gap, :3] = colours.swapaxes(1, 2)  # (Hp, h, Wp, w, 3)
    canvas[:, :-gap, :, :-gap, 3] = 255
    whole = canvas.reshape(rows * canvas.shape[1], columns * canvas.shape[3], 4)
    return encode_png(whole[:-gap, :-gap])


def _coloured(level: NDArray[np.floating], colours: str) -> NDArray[np.uint8]:
    """Values 0..1 (...) as colours (..., 3)."""
    colour: NDArray[np.uint8] = colour_table(colours)[(np.clip(level, 0, 1) * 255).round().astype(np.intp)]
    return colour


def _base64(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
