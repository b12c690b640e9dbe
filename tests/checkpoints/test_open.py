"""What is said of a source that is nothing, and what the server explains with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_run
from torch import nn

from tesela.checkpoints.files import read_file
from tesela.checkpoints.open import open_model
from tesela.core.errors import UsageError, WeightsError
from tesela.exporters.onnx import export_onnx
from tesela.models.bundle import read_info, write_info
from tesela.runtime.predictor import Predictor
from tesela.serve.engine.served import network_of


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("vit_b61", "did you mean"),
        ("vit_b16", "train one first"),
        ("folder/vit_b61", "check the path"),
        ("vit_b16.pth", "check the path"),
    ],
)
def test_a_near_name_is_offered_for_names_and_not_for_paths(source: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_model(source)
    assert hint in str(caught.value.hint)


def test_a_graph_with_weights_beside_it_is_explained_by_the_weights(tmp_path: Path) -> None:
    """Without them there is nothing to explain with."""
    both = tmp_path / "both"
    export_onnx(digits_run(), tmp_path / "graph")
    shutil.copytree(digits_run() / "bundle", both)
    shutil.copy(tmp_path / "graph" / "model.onnx", both)
    graph, whole = read_info(tmp_path / "graph"), read_info(both)
    write_info(both, replace(whole, digests={**graph.digests, **whole.digests}))
    assert isinstance(network_of(Predictor(both, backend="onnxruntime")), nn.Module)
    assert network_of(Predictor(tmp_path / "graph", backend="onnxruntime")) is None


def test_the_hint_names_the_endings_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(WeightsError) as caught:
        read_file(tmp_path / "weights.h5")
    assert caught.value.hint.startswith("known endings are .safetensors, .npz, .")
