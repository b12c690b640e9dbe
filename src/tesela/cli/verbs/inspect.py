"""``tesela inspect``: an HTML page of a model's internals, with its numbers as JSON and NPZ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.core.terminal import line_text
from tesela.imaging.limits import DecodeLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.inspection.inspect import Inspection


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A look into a model.

    Attributes:
        found: the inspection.
        views: the model's view of each image by the image's name.
        model: its name.
        unreadable: name, code and message of each image that could not be read.
    """

    found: Inspection
    views: dict[str, NDArray[np.uint8]]
    model: str
    unreadable: list[dict[str, str]]


def look(run: str, images: str | None, count: int, limits: DecodeLimits) -> Look:
    """The inspection of a model with some images.

    Raises:
        UsageError: there is no such run or image, or ``count`` is below 1.
    """
    from tesela.checkpoints.open import open_model
    from tesela.core.errors import UsageError
    from tesela.imaging.preprocess import fit_image, normalize

    if count < 1:
        raise UsageError(f"count cannot be {count}", hint="give 1 or more images")
    model, info = open_model(run)
    import numpy as np
    import torch

    from tesela.inspection.inspect import inspect as look_inside

    unreadable: list[dict[str, str]] = []
    source = images if images is not None else own_source(Path(run))
    views = {}
    for name, read in readers(source, count, limits, own=images is None) if source else ():
        try:
            views[name] = fit_image(read(info.image.channels), info.image)
        except DataError as error:
            unreadable.append(
                {"name": name, "code": getattr(error, "code", "data"), "message": error.message}
            )
    batch = torch.from_numpy(normalize(np.stack(list(views.values())), info.image)) if views else None
    return Look(found=look_inside(model, batch), views=views, model=info.name, unreadable=unreadable)


def readers(
    text: str, count: int, limits: DecodeLimits, *, own: bool
) -> list[tuple[str, Callable[[int], NDArray[np.uint8]]]]:
    """Up to ``count`` images by name, each with what reads it: of a data set's test split, or of files.

    Args:
        text: a data set, a file, a folder or a pattern.
        count: most images.
        limits: of decoding.
        own: the data is what the run was trained on, and may be gone.

    Raises:
        UsageError: nothing is there.
    """
    from tesela.core.errors import TeselaError
    from tesela.data.config import DataConfig
    from tesela.data.open import open_source
    from tesela.data.sources.tables.table import MANIFEST_SUFFIXES
    from tesela.imaging.decode import decode
    from tesela.runtime.sources import find_images

    try:
        files = find_images([text])
    except TeselaError as refused:
        if text != "digits" and not Path(text).expanduser().exists():
            if own:
                return []
            raise refused
        files = []
    if files and not (len(files) == 1 and files[0].suffix.lower() in (*MANIFEST_SUFFIXES, ".parquet")):
        chosen = [files[index] for index in spread(len(files), count)]
        return [
            (path_text(file), lambda channels, file=file: decode(file, channels=channels, limits=limits))  # type: ignore[misc]
            for file in chosen
        ]
    try:
        config = DataConfig(formats=limits.formats, max_pixels=limits.max_pixels)
        items = open_source(text, config=config).splits["test"]
    except TeselaError:
        if own:
            return []
        raise
    return [
        (items.name(index), lambda channels, index=index: items.read(index, channels=channels))  # type: ignore[misc]
        for index in spread(len(items), count)
    ]


def own_source(run: Path) -> str | None:
    """The data that a run was trained on; None where it is no run."""
    from tesela.core.config import read_yaml

    if not (run / "config.yaml").is_file():
        return None
    source = read_yaml(run / "config.yaml").get("data", {}).get("source")
    return str(source) if source else None


def spread(length: int, count: int) -> list[int]:
    """Up to ``count`` places, evenly over ``length``."""
    return sorted({index * length // min(length, count) for index in range(min(length, count))})
