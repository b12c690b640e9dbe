"""The application over the small digits model, in this process, for the tests of the server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient
from tests.runtime.bundles import digits_onnx, digits_run

from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig


@contextlib.contextmanager
def client(*, onnx_only: bool = False, **limits: Any) -> Iterator[TestClient]:
    """A client of an application that has started; ``limits`` are fields of ServeConfig."""
    predictors = {"graph": Predictor(digits_onnx())}
    if not onnx_only:
        predictors = {"digits": Predictor(digits_run()), **predictors}
    with TestClient(
        create_app(predictors, config=ServeConfig(**{"decoders": 1, **limits})), raise_server_exceptions=False
    ) as found:
        yield found
