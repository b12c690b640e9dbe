"""Images in the forms that Python programs hold: paths, bytes, Pillow's images, arrays.

    (H, W), (H, W, C)   one image, uint8 or bool; transparency is laid over white where the model takes none
    (N, H, W, C)        several of them

Odd: a float array is refused instead of guessed at, for 0..1, 0..255 and normalised ones look alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from tesela.core.errors import ImageError, UsageError
from tesela.data.source import ArrayItems, Source
from tesela.imaging.decode import picture_pixels
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.runtime.stored import content, find_sources, source_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tesela.runtime.predictor import ImageSource

#: One image, or a folder or pattern of several.
ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"


def image_sources(
    images: ImageInput | Iterable[ImageInput], *, channels: int = 3, root: Path | None = None
) -> Iterator[ImageSource]:
    """Each image as a file, encoded bytes, or pixels (H, W, C), uint8.

    Args:
        images: one image, or any number of them; a folder stands for all images below it.
        channels: that the model sees; arrays may have 1, 3, 4 or just as many.
        root: as ``find_images`` takes it.

    Raises:
        UsageError: there is no such file, or an array is no image.
    """
    if isinstance(images, (str, os.PathLike)):
        yield from find_sources([images if isinstance(images, str) else Path(images)], root=root)
    elif isinstance(images, (bytes, bytearray, memoryview)):
        yield bytes(images)
    elif isinstance(images, Image.Image):
        yield picture_pixels(images)
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        for image in images:
            yield array_pixels(image, channels=channels)
    elif isinstance(images, np.ndarray):
        yield array_pixels(images, channels=channels)
    elif isinstance(images, Iterable):
        for image in images:
            yield from image_sources(image, channels=channels, root=root)
    else:
        raise UsageError(
            f"{type(images).__name__} is no image", hint="give paths, bytes, Pillow's images or NumPy arrays"
        )


def prepared_images(spec: ImageSpec, images: Any, root: Path | None) -> NDArray[np.float32]:
    """Images as a model's input (B, C, h, w), normalised.

    Args:
        spec: what the model expects.
        images: what ``image_sources`` takes; or an array or tensor of float32, which is that input already.
        root: folder that names are below.

    Raises:
        ImageError: one cannot be read; it is named.
        UsageError: there is none, or an array has another shape.
    """
    if str(getattr(images, "dtype", "")) in ("float32", "torch.float32"):
        given = np.asarray(images)
        batch: NDArray[np.float32] = given if given.ndim == 4 else given[None]
        if batch.ndim != 4 or batch.shape[1:] != (spec.channels, *spec.size):
            raise UsageError(
                f"an array of {' x '.join(map(str, given.shape))} is no input of this model",
                hint=f"give (B, {spec.channels}, {spec.height}, {spec.width}), normalised",
            )
        return batch
    found = []
    for index, one in enumerate(image_sources(images, channels=spec.channels, root=root)):
        try:
            found.append(preprocess([content(one)], spec, limits=LOCAL_LIMITS))
        except ImageError as error:
            name = source_name(one, index)
            raise ImageError(f"{name}: {error.message}", code=error.code, hint=error.hint) from error
    if not found:
        raise UsageError("no image was given", hint="give one or more")
    return np.concatenate(found)


def array_pixels(image: NDArray[Any], *, channels: int = 3) -> NDArray[np.uint8]:
    """An array as pixels (H, W, C), C one of 1, 3, 4 and the model's ``channels``.

    Raises:
        UsageError: it is neither uint8 nor bool, or has another shape.
    """
    shape = " x ".join(map(str, image.shape))
    if (
        image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] not in (1, 3, 4, channels))
        or not image.size
    ):
        raise UsageError(
            f"an array of {shape} is no image",
            hint="give (H, W), (H, W, 3) or several as (N, H, W, 3); channels come last",
        )
    if image.dtype == np.bool_:
        return image.astype(np.uint8).reshape(*image.shape[:2], -1) * np.uint8(255)
    if image.dtype != np.uint8:
        raise UsageError(
            f"an array of {image.dtype} has no known range",
            hint="give uint8 from 0 to 255; for values from 0 to 1: (array * 255).round().astype('uint8')",
        )
    return image[:, :, None] if image.ndim == 2 else image


def array_source(
    images: NDArray[Any], targets: Sequence[Any], *, labels: Sequence[str], split: str, channels: int = 3
) -> Source:
    """Images in memory with a class for each, as a data set of one split.

    Args:
        images: (N, H, W) or (N, H, W, C), uint8.
        targets: (N,) labels, or class numbers.
        labels: of the model, which class numbers count.
        split: the split's name.
        channels: that the model sees.

    Raises:
        UsageError: an array is no image, or the numbers of images and targets differ.
    """
    pictures = [array_pixels(np.asarray(image), channels=channels) for image in images]
    if len(pictures) != len(targets) or not pictures:
        raise UsageError(
            f"{len(pictures)} images have {len(targets)} targets", hint="give a target for each image"
        )
    if len({picture.shape for picture in pictures}) > 1:
        raise UsageError("the images differ in size", hint="save them as files in class folders")
    values = np.asarray(targets)
    known = tuple(labels)
    if values.dtype.kind in "iu":
        wrong = values[(values < 0) | (values >= len(known))]
        if len(wrong):
            raise UsageError(
                f"the model has no class {wrong[0]}",
                hint=f"give class numbers from 0 to {len(known) - 1}, or labels",
            )
        numbers = values.astype(np.int64)
    else:
        words = [str(target) for target in values.tolist()]
        known = tuple(sorted(set(words)))
        numbers = np.array([known.index(word) for word in words])
    items = ArrayItems(np.stack(pictures), numbers, prefix="images")
    return Source(
        name="arrays", kind="arrays", labels=known, splits={split: items}, channels=pictures[0].shape[2]
    )
