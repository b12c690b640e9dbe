"""``tesela inspect``: an HTML page of a model's internals, with its numbers as JSON and NPZ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.inspection.inspect import Inspection


def inspect(
    run: str, *, images: str | None = None, out: str = "inspection", count: int = 16, json: bool = False
) -> None:
    """Look into a model: filters, positions, how far attention reaches, where each head looks, token norms.

    Writes inspect.html, which needs nothing else; inspect.npz, the arrays; and inspect.json, the numbers.

    Args:
        run: Run folder, bundle, or weights from elsewhere.
        images: Image, folder, pattern or data set to send through the model; by default the test images the
            run was trained with, if they are still there.
        out: Folder for the page and the numbers.
        count: Most images to look at, spread evenly over what is there.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output

    output.use_json(json)
    found, views, name = look(run, images, count)
    from tesela.attribution.draw.heatmap import write_arrays
    from tesela.core.files import write_atomic, write_json
    from tesela.inspection.page import inspect_page

    folder = Path(out)
    page = folder / "inspect.html"
    write_atomic(page, inspect_page(found, name=name, pictures=list(views.items())).encode())
    write_arrays(folder / "inspect.npz", found.arrays())
    summary = {"run": run, "name": name, **found.summary()}
    write_json(folder / "inspect.json", summary)
    if not found.images:
        output.note("no images: attention distance, heads and token norms are left out; give --images")
    output.say(f"written: {page}")
    output.result({**summary, "page": page, "arrays": folder / "inspect.npz"}, json)


def look(run: str, images: str | None, count: int) -> tuple[Inspection, dict[str, NDArray[np.uint8]], str]:
    """The inspection, and the model's view of each image by the image's name, and the model's name.

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

    given = (
        read_images(images, count, info.image.channels)
        if images is not None
        else own_images(Path(run), count, info.image.channels)
    )
    views = {name: fit_image(image, info.image) for name, image in given.items()}
    batch = torch.from_numpy(normalize(np.stack(list(views.values())), info.image)) if views else None
    return look_inside(model, batch), views, info.name


def read_images(text: str, count: int, channels: int) -> dict[str, NDArray[np.uint8]]:
    """Up to ``count`` images by name: of a data set's test split, or of files.

    Raises:
        UsageError: nothing is there.
        ImageError: an image cannot be read.
    """
    from tesela.core.errors import TeselaError
    from tesela.data.open import open_source
    from tesela.data.sources.tables.table import MANIFEST_SUFFIXES
    from tesela.imaging.decode import decode
    from tesela.runtime.sources import find_images

    try:
        files = find_images([text])
    except TeselaError as refused:
        if text != "digits" and not Path(text).expanduser().exists():
            raise refused
        items = open_source(text).splits["test"]
        return {
            items.name(index): items.read(index, channels=channels) for index in spread(len(items), count)
        }
    if len(files) == 1 and files[0].suffix.lower() in (*MANIFEST_SUFFIXES, ".parquet"):
        items = open_source(text).splits["test"]
        return {
            items.name(index): items.read(index, channels=channels) for index in spread(len(items), count)
        }
    return {str(files[index]): decode(files[index], channels=channels) for index in spread(len(files), count)}


def own_images(run: Path, count: int, channels: int) -> dict[str, NDArray[np.uint8]]:
    """Test images of the data that a run was trained on; none where it is no run or its data is gone."""
    from tesela.core.config import read_yaml
    from tesela.core.errors import TeselaError

    try:
        source = (
            read_yaml(run / "config.yaml").get("data", {}).get("source")
            if (run / "config.yaml").is_file()
            else None
        )
        return read_images(str(source), count, channels) if source else {}
    except TeselaError:
        return {}


def spread(length: int, count: int) -> list[int]:
    """Up to ``count`` places, evenly over ``length``."""
    return sorted({index * length // min(length, count) for index in range(min(length, count))})
