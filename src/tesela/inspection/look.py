"""Inspection of a model with some images: named ones, or those that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tesela.core.errors import DataError, UsageError
from tesela.core.pathnames import path_text
from tesela.imaging.limits import DecodeLimits
from tesela.imaging.preprocess import pixels_of
from tesela.runtime.inputs import ImageInput, image_sources
from tesela.runtime.predictor import described

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.inspection.inspect import Inspection
    from tesela.models.model import Model

#: An image's name, and what reads it with so many channels.
NamedImage: TypeAlias = "tuple[str, Callable[[int], NDArray[np.uint8]]]"


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


def look(
    run: str | Path | Model,
    images: ImageInput | Iterable[ImageInput] | None,
    count: int,
    limits: DecodeLimits,
) -> Look:
    """The inspection of a model with some images.

    Args:
        run: a run, a bundle, a foreign checkpoint, or a loaded model.
        images: a data set, files, or images in memory; by default those that a run was trained with.
        count: most images.
        limits: of decoding.

    Raises:
        UsageError: there is no such run or image, or ``count`` is below 1.
    """
    from tesela.checkpoints.open import open_model
    from tesela.imaging.preprocess import fit_image, normalize

    if count < 1:
        raise UsageError(f"count cannot be {count}", hint="give 1 or more images")
    model, info = open_model(run) if isinstance(run, (str, Path)) else (run, described(run))
    import numpy as np
    import torch

    from tesela.inspection.inspect import inspect as look_inside

    unreadable: list[dict[str, str]] = []
    views = {}
    if images is not None and not isinstance(images, (str, Path)):
        chosen = in_memory(images, count, limits, channels=info.image.channels)
    else:
        source = images if images is not None else own_source(run)
        chosen = readers(str(source), count, limits, own=images is None) if source else []
    for name, read in chosen:
        try:
            views[name] = fit_image(read(info.image.channels), info.image)
        except DataError as error:
            unreadable.append(
                {"name": name, "code": getattr(error, "code", "data"), "message": error.message}
            )
    batch = torch.from_numpy(normalize(np.stack(list(views.values())), info.image)) if views else None
    batch = None if batch is None else batch.to(next(model.parameters()))
    return Look(found=look_inside(model, batch), views=views, model=info.name, unreadable=unreadable)


def in_memory(
    images: ImageInput | Iterable[ImageInput], count: int, limits: DecodeLimits, *, channels: int
) -> list[NamedImage]:
    """Up to ``count`` of images that were handed over, each with what reads it."""
    sources = list(image_sources(images, channels=channels))
    return [
        (
            path_text(source) if isinstance(source, Path) else f"image {index}",
            lambda channels, source=source: pixels_of(source, channels, limits=limits),  # type: ignore[misc]
        )
        for index, source in ((index, sources[index]) for index in spread(len(sources), count))
    ]


def readers(text: str, count: int, limits: DecodeLimits, *, own: bool) -> list[NamedImage]:
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
    if files and not (len(files) == 1 and files[0].suffix in (".csv", ".jsonl", ".parquet")):
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


def own_source(run: str | Path | Model) -> str | None:
    """The data that a run was trained on; None where it is no run."""
    from tesela.core.config import read_yaml

    if not isinstance(run, (str, Path)):
        return None
    run = Path(run)
    if not (run / "config.yaml").is_file():
        return None
    source = read_yaml(run / "config.yaml").get("data", {}).get("source")
    return str(source) if source else None


def spread(length: int, count: int) -> list[int]:
    """Up to ``count`` places, evenly over ``length``."""
    return sorted({index * length // min(length, count) for index in range(min(length, count))})
