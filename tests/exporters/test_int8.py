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
from tesela.exporters.int8.histogram import Observed, observe
from tesela.exporters.int8.layers import balance, find_layers, load_graph, open_session
from tesela.exporters.int8.quantise import quantise, quantise_weights
from tesela.exporters.int8.rounding import round_layers, round_rows, symmetric
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


@pytest.mark.parametrize("count", [0, 64])
def test_int8_weights_alone_move_logits_little_and_shrink_the_file(count: int, tmp_path: Path) -> None:
    quantise_weights(digits_onnx() / "model.onnx", tmp_path / "weights.onnx", views(0, count))
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


@pytest.mark.parametrize("rows", [1, 7, 128, 1000])
def test_rows_make_up_for_what_others_lost(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that go together: the results lose less than with the nearest integers, and no row runs away.

    However many rows are rounded before the others hear of it.
    """
    monkeypatch.setattr("tesela.exporters.int8.rounding.ROWS_AT_ONCE", rows)
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((4000, 8)) @ draw.standard_normal((8, 200))
    inputs += 0.3 * draw.standard_normal(inputs.shape)
    inputs[:, 5] = 0  # never seen
    weights = draw.standard_normal((200, 24)).astype(np.float32)
    nearest, scale = symmetric(weights, 1)
    moments = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    found = round_rows(weights, scale, moments)
    lost = [float(np.square(inputs @ (integers * scale - weights)).mean()) for integers in (nearest, found)]
    assert lost[1] < 0.25 * lost[0]
    assert np.abs(found.astype(int) - nearest).max() <= 12
    np.testing.assert_array_equal(found[5], nearest[5])


def test_two_rows_are_rounded_as_by_hand() -> None:
    """Equal inputs: the second row takes the 0.4 steps that the first one lost."""
    weights, scale = np.array([[2.4], [1.3]], np.float32), np.ones(1, np.float32)
    together = np.array([[1.0, 1.0 - 1e-6], [1.0 - 1e-6, 1.0]], np.float32)
    assert round_rows(weights, scale, together).ravel().tolist() == [2, 2]
    assert round_rows(weights, scale, np.eye(2, dtype=np.float32)).ravel().tolist() == [2, 1]
    assert round_rows(weights, scale, np.zeros((2, 2), np.float32)).ravel().tolist() == [2, 1]


def test_groups_of_layers_are_rounded_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = load_graph(digits_onnx() / "model.onnx")
    layers, images = find_layers(graph), views(0, 16)
    wanted = round_layers(graph, layers, images)
    monkeypatch.setattr("tesela.exporters.int8.rounding.MOMENTS_BYTES", 1)
    found = round_layers(graph, layers, images)
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        np.testing.assert_array_equal(found[name].integers, one.integers)


def test_a_range_is_clipped_where_extremes_are_rare() -> None:
    """A normal tensor with one far value: the far value is given up, and 0 stays exact."""
    values = np.random.default_rng(0).standard_normal(200_000)
    values[0] = 1000.0
    seen = Observed(low=float(values.min()), high=1000.0)
    seen.counts += np.histogram(values, bins=2048, range=(seen.low, seen.high))[0]
    seen.choose()
    assert seen.scale < 1000.0 / 255 and 0 <= seen.zero <= 255


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8 images or more, not 3"):
        quantise(digits_onnx() / "model.onnx", tmp_path / "int8.onnx", views(0, 3))
