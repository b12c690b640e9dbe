"""The page of ``tesela inspect``: one HTML file with pictures, charts and a browser of attention, in the style of all pages.

Pictures are small PNG files, one pixel for each patch or filter weight, enlarged by the browser without blurring. The only script draws
the attention of the token that is pointed at (``inspect.js``); all else can be read without it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tesela.attribution.draw.heatmap import colour_table, stretched
from tesela.inspection.inspect import Browsable, Inspection
from tesela.page.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Series,
    figure,
    horizontal_grid,
    line_chart,
    number,
    x_axis,
)
from tesela.page.document import data_uri, document, section, tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAT, SCALE = "inferno", "viridis"
MOST_TABLES, MOST_MAPS = 2, 24
WITHOUT = "This needs images: give --images."


def inspect_page(
    found: Inspection, *, name: str, pictures: Sequence[tuple[str, NDArray[np.uint8]]] = ()
) -> str:
    """The whole page.

    Args:
        found: what ``inspect`` gave.
        name: of the model.
        pictures: name and view (h, w, C), uint8, of the first images that were looked at, in their order.
    """
    head = f"<h1>Inside {escape(name)}</h1>"
    seen = (
        f"{found.images:,} images went through it."
        if found.images
        else "No images were given, so only the weights are shown."
    )
    body = [head, f'<p class="lead">{seen}</p>', tiles(_numbers(found)), _filters(found), _positions(found)]
    if found.positions is None:
        body.append(section("Attention", "<p>This model has no attention that can be traced.</p>"))
    else:
        body += [
            _distance(found),
            _class_token(found),
            _browser(found.browsable, found, pictures),
            _norms(found),
        ]
    style, script = (
        (files("tesela.inspection") / f"inspect.{ending}").read_text(encoding="utf-8")
        for ending in ("css", "js")
    )
    return document(
        f"Inside {name}", "\n".join(body), style=style, script=script if found.browsable and pictures else ""
    )


def _numbers(found: Inspection) -> list[tuple[str, str, str]]:
    rows = [
        (
            "Patches",
            f"{found.grid[0]} × {found.grid[1]}",
            "and " + ("1 prefix token" if found.prefix == 1 else f"{found.prefix} prefix tokens"),
        )
    ]
    if found.distance is not None:
        layers, heads = found.distance.shape
        rows.append(("Attention", f"{layers} × {heads}", "layers and heads"))
        rows.append(("Reach, first layer", f"{found.distance[0].mean():.1f} px", "mean attention distance"))
        rows.append(("Reach, last layer", f"{found.distance[-1].mean():.1f} px", "mean attention distance"))
    rows.append(
        (
            "Filters",
            f"{found.filters.variance.sum() * 100:.1f} %",
            f"of variance in the first {len(found.filters.images)}",
        )
    )
    if found.norms is not None:
        rows.append(
            (
                "Outlier tokens",
                f"{found.norms.outliers.float().mean() * 100:.2f} %",
                "norm above 3 times the median",
            )
        )
    return rows


def _filters(found: Inspection) -> str:
    shown = []
    for image, share in zip(found.filters.images.numpy(), found.filters.variance.tolist(), strict=True):
        size = float(np.abs(image).max()) or 1.0
        pixels = ((image / size * 0.5 + 0.5) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        shown.append(
            f"<figure>{_picture(_png(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels), 'filter')}"
        )
        shown[-1] += f"<figcaption>{share * 100:.1f}&nbsp;%</figcaption></figure>"
    text = (
        f"Principal components of {found.filters.name}, the strongest first, with their shares of the variance; "
        f"these {len(shown)} hold {found.filters.variance.sum() * 100:.1f} %."
    )
    return section("Filters", f'<div class="filters">{"".join(shown)}</div>', text=text)


def _positions(found: Inspection) -> str:
    if found.positions is None:
        return ""
    kind = found.positions.kind
    if found.positions.similarity is not None:
        maps = found.positions.similarity.numpy()
        chosen = [0] if len(maps) == 1 else [0, len(maps) - 1][:MOST_TABLES]
        low, high = float(maps[chosen].min()), float(maps[chosen].max())
        plates = [
            f'<figure class="plate">{_caption(f"Before block {place + 1}") if len(maps) > 1 else ""}'
            f"{_picture(_plate(maps[place], low, high), 'similarity of positions')}</figure>"
            for place in chosen
        ]
        text = (
            f"Position embeddings ({kind}): each small map stands where its patch is and shows how alike (cosine) its embedding is "
            "to those of all patches."
        )
        return section(
            "Positions",
            f'<div class="pair">{"".join(plates)}</div>',
            _bar(SCALE, f"{low:.2f}", f"{high:.2f}"),
            text=text,
        )
    assert found.positions.kernel is not None
    kernels = found.positions.kernel.numpy()
    size = float(np.nanmax(np.abs(kernels))) if np.isfinite(kernels).any() else 0.0
    shown = "".join(
        f"<figure>{_picture(_png(_coloured(np.nan_to_num(kernel / (2 * size or 1) + 0.5, nan=0.5), SCALE)), 'kernel')}"
        f"<figcaption>layer {index + 1}</figcaption></figure>"
        for index, kernel in enumerate(kernels[:MOST_MAPS])
    )
    text = (
        f"There is no table of positions to compare (position: {kind}). Instead: the mean attention logit of a blank image by the key's "
        "offset from the query, which is in the middle."
    )
    return section(
        "Positions",
        f'<div class="plates">{shown}</div>',
        _bar(SCALE, f"{-size:.2g}", f"{size:.2g}"),
        text=text,
    )


def _distance(found: Inspection) -> str:
    if found.distance is None:
        return section("Attention distance", f"<p>{WITHOUT}</p>")
    layers, _ = found.distance.shape
    x = Axis(low=0.5, high=layers + 0.5, start=LEFT, end=WIDTH - RIGHT)
    y = Axis(low=0, high=float(found.distance.max()) * 1.08 or 1.0, start=HEIGHT - BOTTOM, end=TOP)
    body = list(horizontal_grid(y, number))
    means = " ".join(
        f"{x(layer + 1):.1f},{y(float(heads.mean())):.1f}" for layer, heads in enumerate(found.distance)
    )
    body.append(f'<polyline class="line tone2" points="{means}"/>')
    for layer, heads in enumerate(found.distance):
        for head, reach in enumerate(heads.tolist()):
            tip = f"<title>layer {layer + 1}, head {head + 1}: {reach:.1f} px</title>"
            body.append(
                f'<circle class="dot tone1" fill-opacity="0.7" cx="{x(layer + 1):.1f}" cy="{y(reach):.1f}" r="3.6">{tip}</circle>'
            )
    body.extend(x_axis(x, "layer", whole=True))
    chart = figure("Pixels", body, height=HEIGHT, legend=[("one head", 1), ("mean of the layer", 2)])
    text = "How far a patch looks: distance to the patches it attends to, weighted by attention, mean over patches and images."
    return section("Attention distance", f'<div class="charts">{chart}</div>', text=text)


def _class_token(found: Inspection) -> str:
    if found.class_attention is None:
        return ""
    maps = found.class_attention.reshape(*found.class_attention.shape[:2], *found.grid)
    cells = [
        [_picture(_png(_coloured(stretched(one), HEAT)), "attention") for one in layer] for layer in maps
    ]
    text = "Where the class token looks on average over the images. Rows are layers, columns heads; each map has its own scale."
    return section("Class token", _matrix(cells), text=text)


def _browser(
    browsable: Browsable | None, found: Inspection, pictures: Sequence[tuple[str, NDArray[np.uint8]]]
) -> str:
    if browsable is None or not pictures:
        return section("Attention of one token", f"<p>{WITHOUT}</p>")
    _, layers, heads, _, _ = browsable.maps.shape
    rows, columns = found.grid
    sources = [data_uri(_png(_rgb(view))) for _, view in pictures[: len(browsable.maps)]]
    images = [
        {"name": name, "maps": _base64(maps), "peak": [round(float(value), 4) for value in peak.flatten()]}
        for (name, _), maps, peak in zip(pictures, browsable.maps, browsable.peak, strict=False)
    ]
    data: dict[str, Any] = {
        "grid": [rows, columns],
        "heads": heads,
        "queries": browsable.queries,
        "images": images,
    }
    data["colours"] = _base64(colour_table(HEAT))
    thumbnails = "".join(
        f'<button type="button" data-image="{index}" aria-pressed="{str(index == 0).lower()}" aria-label="{escape(name, quote=True)}">'
        f'<img src="{source}" alt=""></button>'
        for index, (source, (name, _)) in enumerate(zip(sources, pictures, strict=False))
    )
    token = (
        '<button type="button" id="class-token" aria-pressed="true">Class token</button>'
        if -1 in browsable.queries
        else ""
    )
    left = (
        f'<div><div class="stage" id="stage" tabindex="0" role="img" aria-label="image; arrow keys choose a patch">'
        f'<img src="{sources[0]}" alt=""><i hidden></i></div>'
        f'<div class="choices">{token}</div><div class="choices">{thumbnails}</div><p class="told" id="told" aria-live="polite"></p></div>'
    )
    cells = [
        [f'<canvas width="{columns}" height="{rows}"></canvas>' for _ in range(heads)] for _ in range(layers)
    ]
    kept = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    text = (
        "Point at a patch, or tap it, to see what that token attends to in each layer (rows) and head (columns). "
        "Each map has its own scale, the largest weight is yellow."
    )
    body = f'<div class="browser">{left}{_matrix(cells, "heads")}</div><script type="application/json" id="attention">{kept}</script>'
    return section("Attention of one token", body, text=text)


def _norms(found: Inspection) -> str:
    if found.norms is None:
        return section("Token norms", f"<p>{WITHOUT}</p>")
    patches, outliers = found.norms.patches, found.norms.outliers.float()

    def line(name: str, values: Any, tone: int) -> Series:
        return Series(
            name=name, points=[(index + 1.0, float(value)) for index, value in enumerate(values)], tone=tone
        )

    lines = [line("median", patches.median(-1).values.mean(0), 1), line("largest", patches.amax((0, 2)), 2)]
    if found.prefix:
        lines.append(line("first prefix token", found.norms.prefix[..., 0].mean(0), 3))
    norms = line_chart(lines, title="Norm after each block", x_label="layer", whole=True, low=0.0)
    share = line_chart(
        [line("outliers", outliers.mean((0, 2)) * 100, 2)],
        title="Outliers, % of patches",
        x_label="layer",
        whole=True,
        low=0.0,
    )
    told = f"{int(outliers[:, -1].sum()):,} of {outliers[:, -1].numel():,} patches stick out after the last block."
    text = "Patches whose norm is more than 3 times their image's median are where large networks keep notes; maps show them as specks. "
    return section("Token norms", f'<div class="charts">{norms}{share}</div>', text=text + told)


def _matrix(cells: Sequence[Sequence[str]], name: str = "") -> str:
    """Layers x heads, numbered."""
    heads = "".join(f"<span>{head + 1}</span>" for head in range(len(cells[0])))
    lines = "".join(f"<span>{layer + 1}</span>{''.join(row)}" for layer, row in enumerate(cells))
    place = f' id="{name}"' if name else ""
    return f'<div class="matrix"{place} style="--heads:{len(cells[0])}"><span></span>{heads}{lines}</div>'


def _plate(maps: NDArray[np.float32], low: float, high: float) -> bytes:
    """(Hp, Wp, h, w) as one picture, a thin transparent line between maps."""
    rows, columns, height, width = maps.shape
    scale, gap = max(1, 28 // max(height, width)), 2
    tall, wide = height * scale, width * scale
    canvas = np.zeros((rows * (tall + gap) - gap, columns * (wide + gap) - gap, 4), np.uint8)
    level = np.clip((maps - low) / ((high - low) or 1.0), 0, 1)
    for row in range(rows):
        for column in range(columns):
            part = canvas[row * (tall + gap) :, column * (wide + gap) :][:tall, :wide]
            part[..., :3], part[..., 3] = (
                _coloured(level[row, column], SCALE).repeat(scale, 0).repeat(scale, 1),
                255,
            )
    return _png(canvas)


def _coloured(level: NDArray[np.floating], colours: str) -> NDArray[np.uint8]:
    """Values 0..1 as colours."""
    colour: NDArray[np.uint8] = colour_table(colours)[(np.clip(level, 0, 1) * 255).round().astype(np.intp)]
    return colour


def _bar(colours: str, low: str, high: str) -> str:
    return f'<div class="bar">{low}<img src="{data_uri(_png(colour_table(colours)[None]))}" alt="colour scale">{high}</div>'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>"


def _picture(data: bytes, tip: str) -> str:
    return f'<img src="{data_uri(data)}" alt="{escape(tip, quote=True)}">'


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _rgb(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return view.repeat(3, 2) if view.shape[2] == 1 else view


def _base64(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
