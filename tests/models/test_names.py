"""Names of a model's tensors: in memory, in files, and in a pickle that any program reads."""

from __future__ import annotations

import io
from collections import OrderedDict

import pytest
import torch

import tesela as ts


def test_a_backbones_tensor_is_found_by_its_name_in_files() -> None:
    model = ts.create_model("vit_nano", num_classes=3)
    state = model.state_dict()
    assert torch.equal(state["positions.table"], state["backbone.positions.table"])
    assert "positions.table" not in list(state)
    with pytest.raises(KeyError, match=r"no\.such"):
        state["no.such"]
    model.load_state_dict(state)


def test_a_saved_state_needs_nothing_of_tesela() -> None:
    """``weights_only`` loading allows plain dictionaries only."""
    state = ts.create_model("vit_nano", num_classes=3).state_dict()
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    assert type(loaded) is OrderedDict and list(loaded) == list(state)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
