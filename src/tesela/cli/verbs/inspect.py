"""``tesela inspect``: an HTML page of a model's internals, with its numbers as JSON and NPZ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tesela.core.terminal import line_text


def inspect(
    run: str,
    /,
    *,
    images: str | None = None,
    out: str = "inspection",
    count: int = 16,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Look into a model: filters, positions, how far attention reaches, where each head looks, token norms.

    Writes inspect.html, which needs nothing else; inspect.npz, the arrays; and inspect.json, the numbers.
    Exit code 1 if an image could not be read.

    Args:
        run: Run folder, bundle, or weights from elsewhere.
        images: Image, folder, pattern or data set to send through the model; by default the test images the
            run was trained with, if they are still there.
        out: Folder for the page and the numbers.
        count: Most images to look at, spread evenly over what is there.
        formats: The only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: Most pixels of an image; 250 million by default.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output
    from tesela.core.files import write_json, write_text
    from tesela.imaging.limits import local_limits
    from tesela.inspection.look import look

    output.use_json(json)
    seen = look(run, images, count, local_limits(formats or (), max_pixels))
    from tesela.attribution.draw.heatmap import write_arrays
    from tesela.inspection.page import inspect_page

    found, folder = seen.found, Path(out)
    page = folder / "inspect.html"
    write_text(page, inspect_page(found, name=seen.model, pictures=list(seen.views.items())))
    write_arrays(folder / "inspect.npz", found.arrays())
    summary = {"run": run, "name": seen.model, **found.summary(), "unreadable": seen.unreadable}
    write_json(folder / "inspect.json", summary)
    output.note_unreadable(
        f"unreadable: {line_text(bad['name'])}: {bad['message']}" for bad in seen.unreadable
    )
    if not found.images:
        output.note("no images: attention distance, heads and token norms are left out; give --images")
    output.say(f"written: {line_text(page)}")
    output.result({**summary, "page": page, "arrays": folder / "inspect.npz"}, json)
    return 1 if seen.unreadable else 0
