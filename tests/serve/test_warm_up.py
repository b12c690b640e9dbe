"""A server computes empty images before it says that it is ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient
from tests.runtime.bundles import digits_run

import tesela.serve.engine.served as served
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig


def sizes_at_start(monkeypatch: pytest.MonkeyPatch, *, most: int, wait: float = 0.0) -> tuple[list[int], str]:
    """Batches that are computed before the first request, and the server's metrics then."""
    predictor = Predictor(digits_run())
    sizes: list[int] = []
    outputs: Callable[..., Any] = predictor.outputs

    def counted(images: Sequence[NDArray[Any]]) -> Any:
        sizes.append(len(images))
        time.sleep(wait)
        return outputs(images)

    monkeypatch.setattr(predictor, "outputs", counted)
    app = create_app({"one": predictor}, config=ServeConfig(max_batch=most))
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        return sizes, client.get("/metrics").text


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_batches_grow_to_the_largest(monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]) -> None:
    found, metrics = sizes_at_start(monkeypatch, most=most)
    assert found == sizes
    assert 'tesela_batch_images_count{model="one"} 0.0' in metrics


def test_a_slow_model_is_ready_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second batch would go past the time."""
    monkeypatch.setattr(served, "WARM_SECONDS", 0.5)
    assert sizes_at_start(monkeypatch, most=16, wait=0.3)[0] == [1]
