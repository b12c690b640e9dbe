"""Quantised graphs: rounding of weights and ranges, balancing, layers kept by measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from tests.runtime.bundles import SPEC, digits, digits_onnx

from tesela.core.errors import DataError
from tesela.exporters.histogram import Observed, observe
from tesela.exporters.int8 import quantise, quantise_weights, symmetric
from tesela.exporters.layers import balance, find_layers, load_graph, open_session
from tesela.imaging.preprocess import normalize


def views(first: int, count: int) -> NDArray[np.float32]:
    """Digits as the model sees them."""
    return normalize(digits()[0][first : first + count], SPEC)


def logits(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """By onnxruntime itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["logits"], {"images": images})[0]
    return found


def types(path: Path) -> set[int]:
    """Element types of the initializers."""
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def test_int8_predicts_as_fp32_on_images_that_did_not_calibrate(tmp_path: Path) -> None:
    result = quantise(digits_onnx() / "model.onnx", tmp_path / "int8.onnx", views(0, 64))
    images = views(1500, 200)
    wanted, found = (logits(path, images) for path in (digits_onnx() / "model.onnx", tmp_path / "int8.onnx"))
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.99
    assert 0 < np.abs(wanted - found).max() < 2.0
    assert len(result.kept) <= result.layers / 2
    assert {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} <= types(tmp_path / "int8.onnx")


def test_int8_serves_other_sizes_and_batches(tmp_path: Path) -> None:
    quantise(digits_onnx() / "model.onnx", tmp_path / "int8.onnx", views(0, 32))
    images = np.repeat(np.repeat(views(1500, 3), 2, axis=2), 2, axis=3)
    wanted, found = (logits(path, images) for path in (digits_onnx() / "model.onnx", tmp_path / "int8.onnx"))
    assert np.abs(wanted - found).max() < 2.0


def test_int8_weights_alone_move_logits_little_and_shrink_the_file(tmp_path: Path) -> None:
    quantise_weights(digits_onnx() / "model.onnx", tmp_path / "weights.onnx")
    images = views(1500, 100)
    wanted, found = (
        logits(path, images) for path in (digits_onnx() / "model.onnx", tmp_path / "weights.onnx")
    )
    assert 0 < np.abs(wanted - found).max() < 0.5
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.99
    assert onnx.TensorProto.UINT8 not in types(tmp_path / "weights.onnx")
    assert (tmp_path / "weights.onnx").stat().st_size < 0.8 * (digits_onnx() / "model.onnx").stat().st_size


def test_balancing_changes_no_result_and_evens_channels() -> None:
    graph = load_graph(digits_onnx() / "model.onnx")
    images = views(0, 16)
    before = open_session(graph).run(["logits"], {"images": images})[0]
    layers = find_layers(graph)
    observed = observe(graph, layers, images, channels=True)
    spread = {name: seen.channels.max() / seen.channels.min() for name, seen in observed.items()}
    balance(graph, layers, observed)
    after = open_session(graph).run(["logits"], {"images": images})[0]
    np.testing.assert_allclose(after, before, atol=2e-5)
    again = observe(graph, layers, images, channels=True)
    changed = [
        name for name, seen in again.items() if not np.allclose(seen.channels, observed[name].channels)
    ]
    assert changed
    assert all(again[name].channels.max() / again[name].channels.min() < spread[name] for name in changed)


def test_rounding_of_weights_is_within_half_a_step_of_each_channel() -> None:
    values = np.random.default_rng(0).standard_normal((16, 24)).astype(np.float32)
    values *= np.geomspace(1e-3, 1e3, 24, dtype=np.float32)
    integers, scale = symmetric(values, 1)
    assert scale.shape == (24,)
    lost = np.square(integers * scale - values).mean(0) / np.square(values).mean(0)
    assert lost.max() < 1e-4  # every channel, however small


def test_a_range_is_clipped_where_extremes_are_rare() -> None:
    """A normal tensor with one far value: the far value is given up, and 0 stays exact."""
    values = np.random.default_rng(0).standard_normal(200_000)
    values[0] = 1000.0
    seen = Observed(low=float(values.min()), high=1000.0)
    seen.counts += np.histogram(values, bins=2048, range=(seen.low, seen.high))[0]
    seen.choose()
    assert seen.scale < 1000.0 / 255 and 0 <= seen.zero <= 255


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 images are too few to calibrate"):
        quantise(digits_onnx() / "model.onnx", tmp_path / "int8.onnx", views(0, 3))
