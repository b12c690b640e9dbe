"""Images of any number of channels: what each file gives, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tesela.core.errors import ConfigError, ImageError
from tesela.data.augment.augment import Augment, on_colours
from tesela.data.config import AugmentConfig, DataConfig
from tesela.data.open import open_source
from tesela.imaging.color import as_rgb, with_channels
from tesela.imaging.decode import decode, picture_pixels
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.preprocess import fit_image, preprocess
from tesela.imaging.spec import ImageSpec, Resize

GENERATOR = np.random.default_rng(0)
RGBA: NDArray[np.uint8] = GENERATOR.integers(0, 256, (9, 11, 4)).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_kept_as_stored(kind: str) -> None:
    """Also the colours of wholly transparent pixels."""
    pixels = RGBA.copy()
    pixels[:4, :, 3] = 0
    assert np.array_equal(decode(encoded(pixels, kind), channels=4, limits=LOCAL_LIMITS), pixels)
    assert np.array_equal(
        decode(encoded(pixels[..., 2:], kind), channels=2, limits=LOCAL_LIMITS), pixels[..., 2:]
    )


def test_one_kind_as_another() -> None:
    """Reference: Pillow's own conversions, and alpha over white by hand."""
    image = Image.fromarray(RGBA)
    opaque = image.convert("RGB")
    over = (RGBA[..., :3].astype(int) * RGBA[..., 3:] + 255 * (255 - RGBA[..., 3:].astype(int))) / 255
    sources = {"P": opaque.quantize(8), "L": opaque.convert("L"), "1": opaque.convert("1"), "RGB": opaque}
    for mode, source in sources.items():
        stream = io.BytesIO()
        source.save(stream, "PNG")
        wanted = np.asarray(source.convert("RGBA"))
        assert np.array_equal(decode(stream.getvalue(), channels=4), wanted), mode
        wanted = np.asarray(source.convert("RGB").convert("LA"))
        assert np.abs(decode(stream.getvalue(), channels=2).astype(int) - wanted).max() <= 1, mode
    for found in (
        decode(encoded(RGBA), channels=3),
        with_channels(RGBA, 3),
        with_channels(picture_pixels(image), 3),
    ):
        assert np.abs(found - over).max() <= 0.5
    grey_over = with_channels(RGBA[..., 2:], 1)[..., 0]
    assert np.abs(grey_over - over[..., 2]).max() <= 0.5
    assert np.array_equal(with_channels(RGBA, 2)[..., 1], RGBA[..., 3])
    jpeg = encoded(RGBA[..., :3], "JPEG", quality=95)
    assert np.array_equal(decode(jpeg, channels=4)[..., :3], decode(jpeg, channels=3))
    assert (decode(jpeg, channels=4)[..., 3] == 255).all()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_are_resized_each_alone(resize: Resize, channels: int) -> None:
    """Reference: each channel as a grey image; transparent pixels weigh as much as others."""
    pixels = GENERATOR.integers(0, 256, (9, 11, channels)).astype(np.uint8)
    pixels[..., -1] //= 8
    spec = ImageSpec(
        height=5, width=7, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels, resize=resize
    )
    one = ImageSpec(height=5, width=7, channels=1, mean=(0.5,), std=(0.25,), resize=resize)
    found = fit_image(pixels, spec)
    for place in range(channels):
        assert np.array_equal(found[..., place : place + 1], fit_image(pixels[..., place : place + 1], one))
    batch = preprocess([pixels], spec)
    np.testing.assert_allclose(batch[0], (found.transpose(2, 0, 1) / 255 - 0.5) / 0.25, atol=1e-5)


def test_what_no_file_has_is_refused() -> None:
    """Five channels from a file, or from an image of three: never guessed."""
    for source in (encoded(RGBA), encoded(RGBA[..., :3], "JPEG")):
        with pytest.raises(ImageError, match="none of 5") as caught:
            decode(source, channels=5)
        assert "1 to 4" in caught.value.hint
    with pytest.raises(ImageError, match="an image of 5 channels is none of 3"):
        with_channels(np.zeros((2, 2, 5), np.uint8), 3)
    with pytest.raises(ConfigError, match="1 to 4 channels, not 5"):
        DataConfig(channels=5)
    with pytest.raises(ConfigError, match="1 channel or more"):
        ImageSpec(height=2, width=2, channels=0, mean=(), std=())
    assert np.array_equal(as_rgb(np.arange(20, dtype=np.uint8).reshape(2, 2, 5))[0, 1], [5, 6, 7])


def test_a_folder_with_its_channels(tmp_path: Path) -> None:
    """As asked for; without, transparency is laid over white as before."""
    for number in range(20):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(RGBA))
    for channels, wanted in (("auto", 3), (1, 1), (2, 2), (3, 3), (4, 4)):
        source = open_source(tmp_path, config=DataConfig(channels=channels))  # type: ignore[arg-type]
        assert source.channels == wanted
        read = source.splits["train"].read(0, channels=source.channels)
        assert np.array_equal(read, with_channels(RGBA, wanted))


def test_colours_change_and_alpha_does_not() -> None:
    """Reference: the same operations on the colours alone; unknown channels are refused."""
    import torch

    images = torch.from_numpy(GENERATOR.integers(0, 256, (6, 4, 8, 8)).astype(np.uint8))
    for options in ({"color_jitter": 0.5}, {"randaugment": 2}, {"trivialaugment": True}):
        config = AugmentConfig(preset="none", **options)
        specs = [
            ImageSpec(height=8, width=8, channels=count, mean=(0.5,) * count, std=(0.2,) * count)
            for count in (4, 3)
        ]
        rows = np.arange(6)
        four, three = (
            Augment(config, spec)(images[:, : spec.channels], seed=1, epoch=0, indices=rows) for spec in specs
        )
        assert torch.equal(four[:, :3], three)
        if "color_jitter" in options:
            assert torch.equal(four[:, 3], images[:, 3]) and not torch.equal(three, images[:, :3])
        with pytest.raises(ConfigError, match="which of 5 channels are colours"):
            Augment(config, ImageSpec(height=8, width=8, channels=5, mean=(0.5,) * 5, std=(0.2,) * 5))
    assert torch.equal(on_colours(images[:, :2], lambda colours: 255 - colours)[:, 1], images[:, 1])
