"""Backbones of transformers as segmenters: trained from a folder, exported, computed elsewhere.

DINOv3's rotary positions, SigLIP's positions and CLIP's norm before the blocks each in a graph of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from tests.parity.backbone_models import saved
from tests.tasks.test_segmentation import draw

import tesela as ts
from tesela.exporters.contract import BOUNDS
from tesela.exporters.graph import write_graph
from tesela.exporters.int8.quantise import quantise
from tesela.models.bundle import load_bundle

NAMES = ("dinov3", "siglip", "clip")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("boxes")
    for seed, (split, count) in enumerate({"train": 8, "val": 4, "test": 4}.items()):
        draw(place, split, count, seed=seed)
    (place / "classes.csv").write_text(
        "value,name,color,ignored\n0,ground,#202020,\n1,red,#d02020,\n2,green,#20d020,\n255,void,,yes\n"
    )
    return place


def trained(name: str, data: Path, place: Path) -> Path:
    """A run of a few steps from a folder as on the hub."""
    saved(name, place / "hf", num_hidden_layers=1)
    result = ts.train(
        data,
        from_=str(place / "hf"),
        task="segment",
        epochs=2,
        batch_size=4,
        image_size=(32, 48),
        out=str(place / "run"),
        precision="fp32",
        threads=1,
        tensorboard=False,
        report=False,
    )
    assert result.task == "segment" and 0 < (result.scores["mean_iou"] or 0) <= 1
    return place / "run"


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(request.param, data, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def graph(run: Path) -> Path:
    """Its graph in ONNX, fp32."""
    model, info = load_bundle(run / "bundle")
    assert info.task == "segment" and info.model["patch_size"] == [8, 8]
    write_graph(model, info, run / "model.onnx")
    return run / "model.onnx"


def logits(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """By onnxruntime itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["logits"], {"images": images})[0]
    return found


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 48), (64, 32)])
def test_onnx_gives_torchs_logits_at_other_sizes(run: Path, graph: Path, height: int, width: int) -> None:
    """Reference: the module; sizes of the training, larger, and of another ratio."""
    model, _ = load_bundle(run / "bundle")
    images = np.random.default_rng(height).standard_normal((2, 3, height, width), dtype=np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    assert wanted.shape == (2, 3, height, width)
    np.testing.assert_allclose(logits(graph, images), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_int8_finds_the_same_classes(graph: Path, tmp_path: Path) -> None:
    """Reference: fp32, on images that did not calibrate, at two sizes; the bound is that of the contract."""
    draw = np.random.default_rng(0)
    result = quantise(graph, tmp_path / "int8.onnx", draw.standard_normal((16, 3, 32, 48), dtype=np.float32))
    assert len(result.kept) <= result.layers / 2
    for height, width in ((32, 48), (64, 32)):
        images = draw.standard_normal((8, 3, height, width), dtype=np.float32)
        wanted, found = logits(graph, images), logits(tmp_path / "int8.onnx", images)
        assert 0 < np.abs(wanted - found).max() < 0.2 * np.abs(wanted).max()
        assert (wanted.argmax(1) == found.argmax(1)).mean() >= BOUNDS["int8"].agreement
