"""Pixels of foreign models' preprocessing against the libraries that trained them, over sizes and ratios.

timm after its definition (timm_pixels.py), transformers by its own Pillow processors. Noise of full contrast
shows a shift by a fraction of a pixel as many grey levels. Torch, onnxruntime and the server take the same
view, since all of them call ``fitted_view``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.parity.timm_pixels import timm_view
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tesela.checkpoints.huggingface.preprocessor import read_spec, write_spec
from tesela.checkpoints.timm.config import timm_config
from tesela.checkpoints.timm.names import TimmStyle
from tesela.checkpoints.timm.read import timm_fit
from tesela.core.config import to_mapping
from tesela.imaging import preprocess as preprocessing
from tesela.imaging.mask import fit_mask
from tesela.imaging.preprocess import fit_image, fitted_view, placement, preprocess, unfit
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model
from tesela.runtime.predictor import Predictor
from tesela.training.prepare import begun_spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Odd and even, upright and oblong, smaller and larger than the view.
SIZES = [
    (480, 360),
    (360, 480),
    (333, 500),
    (257, 255),
    (224, 224),
    (50, 71),
    (71, 50),
    (97, 1031),
    (640, 427),
]


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (*size, 3), dtype=np.uint8) * 255


def sizes(count: int, seed: int) -> Iterator[tuple[int, int]]:
    yield from SIZES
    for row in np.random.default_rng(seed).integers(20, 420, (count, 2)):
        yield int(row[0]), int(row[1])


def timm_spec(view: tuple[int, int], crop_pct: float, **fields: Any) -> ImageSpec:
    mode = {"center": "crop", "squash": "squash", "border": "pad"}[fields.pop("crop_mode", "center")]
    fit = timm_fit(view, crop_pct, resize=mode)  # type: ignore[arg-type]
    return ImageSpec(
        height=view[0], width=view[1], channels=3, mean=MEAN, std=STD, crop_ratio=crop_pct, **fit, **fields
    )


@pytest.mark.parametrize(
    ("view", "settings"),
    [
        ((64, 64), {"crop_pct": 0.875}),
        ((64, 64), {"crop_pct": 0.9}),
        ((64, 64), {"crop_pct": 0.95, "interpolation": "bilinear"}),
        ((64, 64), {"crop_pct": 1.0}),
        ((64, 96), {"crop_pct": 0.9}),
        ((96, 64), {"crop_pct": 1.0}),
        ((64, 64), {"crop_pct": 0.875, "crop_mode": "squash"}),
        ((64, 48), {"crop_pct": 1.0, "crop_mode": "squash"}),
        ((64, 64), {"crop_pct": 1.0, "crop_mode": "border"}),
        ((64, 64), {"crop_pct": 0.9, "crop_mode": "border"}),
        ((64, 64), {"crop_pct": 0.9, "interpolation": "lanczos"}),
        ((64, 64), {"crop_pct": 0.9, "interpolation": "nearest"}),
    ],
)
def test_timm(view: tuple[int, int], settings: dict[str, Any]) -> None:
    spec = timm_spec(view, **settings)
    for number, size in enumerate(sizes(15, seed=1)):
        image = noise(size, number)
        np.testing.assert_array_equal(fit_image(image, spec), timm_view(image, view, **settings), str(size))


def test_timm_at_its_own_size() -> None:
    """Halves of a pixel are rounded to the even neighbour: 343 - 224 and 341 - 224 are odd."""
    spec = timm_spec((224, 224), 0.875)
    for size in ((480, 360), (256, 343), (343, 256), (480, 640), (375, 500)):
        image = noise(size)
        np.testing.assert_array_equal(fit_image(image, spec), timm_view(image, (224, 224), crop_pct=0.875))


TRANSFORMERS: list[tuple[Any, dict[str, Any]]] = [
    (ViTImageProcessorPil, {"size": {"height": 64, "width": 64}}),
    (ViTImageProcessorPil, {"size": {"height": 48, "width": 64}, "resample": 3}),
    (DeiTImageProcessorPil, {"size": {"height": 73, "width": 73}, "crop_size": {"height": 64, "width": 64}}),
    (DeiTImageProcessorPil, {"size": {"height": 70, "width": 90}, "crop_size": {"height": 64, "width": 64}}),
    (BitImageProcessorPil, {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}}),
    (BitImageProcessorPil, {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}}),
    (
        BitImageProcessorPil,
        {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "resample": 1},
    ),
    (CLIPImageProcessorPil, {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    (ConvNextImageProcessorPil, {"size": {"shortest_edge": 64}}),
    (ConvNextImageProcessorPil, {"size": {"shortest_edge": 65}, "crop_pct": 0.95, "resample": 2}),
    (ConvNextImageProcessorPil, {"size": {"shortest_edge": 384}}),
    (SegformerImageProcessorPil, {"size": {"height": 64, "width": 64}}),
    (
        SegformerImageProcessorPil,
        {
            "size": {"height": 64, "width": 64},
            "do_center_crop": True,
            "crop_size": {"height": 32, "width": 32},
        },
    ),
]


def library_view(processor: Any, image: np.ndarray) -> np.ndarray:
    """What transformers' processor makes of an image, (3, h, w), normalised."""
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize(("kind", "settings"), TRANSFORMERS)
def test_transformers(kind: Any, settings: dict[str, Any]) -> None:
    """From the preprocessor_config.json that the library itself writes."""
    processor = kind(**settings)
    stated = {name: value for name, value in processor.to_dict().items() if value is not None}
    spec, remarks = read_spec(stated, model_type="vit", image_size=(64, 64), channels=3)
    assert remarks == []
    for number, size in enumerate(sizes(15, seed=2)):
        image = noise(size, number)
        np.testing.assert_allclose(
            preprocess([image], spec)[0], library_view(processor, image), atol=2e-5, err_msg=str(size)
        )


@pytest.mark.parametrize(
    ("kind", "settings"),
    TRANSFORMERS[:-1],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_there_and_back_in_transformers(kind: Any, settings: dict[str, Any]) -> None:
    stated = {name: value for name, value in kind(**settings).to_dict().items() if value is not None}
    spec = read_spec(stated, model_type="vit", image_size=(64, 64), channels=3)[0]
    again = read_spec(write_spec(spec), model_type="vit", image_size=(64, 64), channels=3)[0]
    assert again == spec


@pytest.mark.parametrize(("view", "ratio"), [((64, 64), 0.9), ((64, 96), 0.95), ((224, 224), 0.96)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_there_and_back_in_timm(view: tuple[int, int], ratio: float, mode: str) -> None:
    spec = timm_spec(view, ratio, crop_mode=mode)
    fields = to_mapping(
        create_model("vit_nano", num_classes=2, channels=3, image_size=view, patch_size=8).config
    )
    written = timm_config("vit", fields, TimmStyle(), image=spec, labels=["a", "b"], license="MIT")
    stated = written["pretrained_cfg"]
    assert timm_spec(view, stated["crop_pct"], crop_mode=stated["crop_mode"]) == spec


def test_transformers_whole_pixels_have_a_ratio_in_timm() -> None:
    """floor(224 / (224 / s)) misses s for some s, so the ratio is chosen to give it."""
    fields = to_mapping(create_model("vit_nano", num_classes=2).config)
    for short in range(224, 300):
        spec = dataclasses.replace(
            timm_spec((224, 224), 0.9), arithmetic="transformers", resized=(short,), crop_ratio=224 / short
        )
        written = timm_config("vit", fields, TimmStyle(), image=spec, labels=["a", "b"], license="MIT")
        assert timm_fit((224, 224), written["pretrained_cfg"]["crop_pct"], resize="crop")["resized"] == (
            short,
        )


def test_another_size_of_the_view() -> None:
    image = noise((480, 360))
    spec = timm_spec((224, 224), 0.9).at((96, 96))
    np.testing.assert_array_equal(fit_image(image, spec), timm_view(image, (96, 96), crop_pct=0.9))
    spec = timm_spec((224, 224), 0.9).at((96, 64))
    np.testing.assert_array_equal(fit_image(image, spec), timm_view(image, (96, 64), crop_pct=0.9))
    clip = dataclasses.replace(timm_spec((224, 224), 0.875), arithmetic="transformers")
    assert (clip.at((448, 448)).resized, clip.at((112, 84)).resized) == ((512,), (128,))


def test_a_long_strip_is_not_resized_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part alone, at the same place: a ramp shows it to a grey level."""
    spec, ramp = timm_spec((64, 64), 0.9), np.zeros((40, 3000, 3), np.uint8)
    ramp[:] = (np.abs(np.arange(3000) - 1400) % 256)[None, :, None]
    whole = fit_image(ramp, spec)
    monkeypatch.setattr(preprocessing, "MOST_RESIZED", 1000)
    part = fit_image(ramp, spec)
    assert np.abs(whole.astype(int) - part).max() <= 1


@pytest.mark.parametrize("spec", [timm_spec((64, 64), 0.9), timm_spec((64, 64), 0.9, crop_mode="border")])
def test_maps_and_masks_lie_where_the_view_was_cut(spec: ImageSpec) -> None:
    """A step edge in the image, its mask in the view, and the view brought back."""
    edge = np.zeros((150, 101, 3), np.uint8)
    edge[60:] = 255
    view, mask = fit_image(edge, spec), fit_mask(edge[..., 0] // 255, spec)
    place = placement((150, 101), spec)
    top, left, height, width = place.view
    inside = np.s_[top : top + height, left : left + width]
    assert (np.abs(view[inside][..., 0] / 255.0 - mask[inside]) > 0.5).sum() <= width  # one row of ties
    back = unfit(view[..., 0].astype(np.float32) / 255, (150, 101), spec)
    column = int(place.box[1] + place.box[3] / 2)
    rows = np.arange(150) + 0.5
    seen = (rows > place.box[0] + 2) & (rows < place.box[0] + place.box[2] - 2) & (np.abs(rows - 60) > 4)
    np.testing.assert_allclose(back[seen, column], (rows[seen] > 60).astype(float), atol=0.05)


def test_every_backend_takes_the_same_view(tmp_path: Path) -> None:
    """Bundle, its ONNX export, and encoded bytes as the server decodes them: timm's pixels to the bit."""
    from tesela.exporters.onnx import export_onnx
    from tesela.imaging.limits import DEFAULT_LIMITS
    from tesela.imaging.png import encode_png

    spec = timm_spec((16, 16), 0.9)
    model = create_model("vit_nano", num_classes=2, channels=3, image_size=(16, 16), patch_size=8, seed=0)
    write_bundle(tmp_path / "bundle", model, describe(model, name="m", labels=["a", "b"], image=spec))
    export_onnx(tmp_path / "bundle", tmp_path / "onnx")
    image = noise((45, 61))
    wanted = timm_view(image, (16, 16), crop_pct=0.9)
    torch, graph = Predictor(tmp_path / "bundle", backend="torch"), Predictor(tmp_path / "onnx")
    assert graph.backend.name == "onnxruntime"
    for predictor in (torch, graph):
        np.testing.assert_array_equal(predictor.prepare(image), wanted)
    np.testing.assert_array_equal(fitted_view(encode_png(image), spec, limits=DEFAULT_LIMITS)[0], wanted)
    np.testing.assert_allclose(torch.outputs([wanted]), graph.outputs([wanted]), atol=1e-5)


def test_a_resumed_run_keeps_the_preprocessing_it_began_with() -> None:
    """Runs of earlier versions have written none down and go on with the nearest of our own arithmetic."""
    spec = timm_spec((64, 64), 0.875)
    ours = ImageSpec(height=64, width=64, channels=3, mean=MEAN, std=STD, resize="crop", crop_ratio=0.875)
    assert begun_spec(to_mapping(spec), ours) == spec
    assert begun_spec({}, spec) == ours
    assert begun_spec({}, ours) == ours
    deit = dataclasses.replace(
        spec, arithmetic="transformers", resize="squash", resized=(73, 73), interpolation="hamming"
    )
    assert begun_spec({}, deit) == dataclasses.replace(ours, interpolation="bilinear")
    squash = timm_spec((64, 64), 0.875, crop_mode="squash")
    assert begun_spec({}, squash) == dataclasses.replace(ours, resize="squash", crop_ratio=1.0)
