"""Canaries of private parts of PyTorch: each says in one line what a PyTorch changed, and is complete.

What they mean is tested in ``test_torch_private``; without them tesela falls back, and is slower.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import _inductor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tesela.hardware import torch_private as private
from tesela.hardware.machine import compiler

SCHEMAS = {
    "_linear_pointwise": (
        "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, "
        "str? algorithm) -> Tensor Y"
    ),
    "_reorder_linear_weight": (
        "mkldnn::_reorder_linear_weight(Tensor self, int? batch_size=None) -> Tensor Y"
    ),
    "_is_mkldnn_bf16_supported": "mkldnn::_is_mkldnn_bf16_supported() -> bool _0",
    "_int_mm": "aten::_int_mm(Tensor self, Tensor mat2) -> Tensor",
    "_softmax_backward_data": (
        "aten::_softmax_backward_data(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) "
        "-> Tensor"
    ),
    "_foreach_lerp_": (
        "aten::_foreach_lerp_.Scalar(Tensor(a!)[] self, Tensor[] tensors1, Scalar weight) -> ()"
    ),
}
TABLES = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_modules",
    "_parameters",
)


def changed_operator(name: str) -> str:
    """What changed of an operator; empty if nothing."""
    wanted = SCHEMAS[name]
    room = getattr(torch.ops, wanted.partition(":")[0])
    operator = getattr(room, name, None)
    if operator is None:
        return f"torch.ops.{wanted.partition(':')[0]}.{name} is gone; it was {wanted}"
    found = [str(getattr(operator, one)._schema) for one in operator.overloads()]
    return "" if wanted in found else f"{name} is now {' or '.join(found)}; it was {wanted}"


def changed_function(room: Any, name: str, known: tuple[str, ...]) -> str:
    """What changed of a Python function, of whose parameters some must be there."""
    function = getattr(room, name, None)
    if function is None:
        return f"{room.__name__}.{name} is gone"
    missing = [one for one in known if one not in inspect.signature(function).parameters]
    return f"{room.__name__}.{name} has no parameter {', '.join(missing)} any more" if missing else ""


def changed_attribute(thing: Any, name: str, kind: type) -> str:
    """What changed of an attribute of an object of PyTorch."""
    whose = type(thing).__name__
    if name not in vars(thing):
        return f"{whose}.{name} is no attribute of the object any more"
    found = vars(thing)[name]
    return (
        "" if isinstance(found, kind) else f"{whose}.{name} is a {type(found).__name__}, no {kind.__name__}"
    )


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(2)))


def changed_global() -> str:
    """Whether the attention of PyTorch's layer still calls the fused kernel by a global name."""
    code = nn.functional.multi_head_attention_forward.__code__
    if "scaled_dot_product_attention" in code.co_names:
        return ""
    return "nn.functional.multi_head_attention_forward calls scaled_dot_product_attention no more by its name"


CANARIES: dict[str, Callable[[], str]] = {
    **{name: partial(changed_operator, name) for name in SCHEMAS},
    **{name: partial(changed_attribute, nn.Linear(1, 1), name, dict) for name in TABLES},
    "_iterator": lambda: changed_attribute(loader(), "_iterator", type(None)),
    "_shutdown_workers": lambda: changed_function(
        _MultiProcessingDataLoaderIter, "_shutdown_workers", ("self",)
    ),
    "_inductor": lambda: (
        changed_function(_inductor, "aoti_compile_and_package", ("package_path", "inductor_configs"))
        or changed_function(_inductor, "aoti_load_package", ("path",))
    ),
    "scaled_dot_product_attention": changed_global,
}


@pytest.mark.parametrize("name", list(CANARIES))
def test_this_pytorch_has_what_is_used(name: str) -> None:
    changed = CANARIES[name]()
    assert not changed, changed


def test_every_private_name_has_a_canary() -> None:
    """Read off the source: attributes, texts and imports that begin with one underscore."""
    tree = ast.parse(Path(inspect.getfile(private)).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()
    }
    used |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    found = {name for name in used if name.startswith("_") and not name.startswith("__")} - set(vars(private))
    assert found - set(CANARIES) == set()
    assert set(CANARIES) - found == {"scaled_dot_product_attention"}


def test_a_canary_says_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of change, in one line that names the part."""
    monkeypatch.setitem(SCHEMAS, "_int_mm", "aten::_int_mm(Tensor left) -> Tensor")
    monkeypatch.setitem(SCHEMAS, "_odd", "aten::_odd() -> Tensor")
    said = [
        changed_operator("_int_mm"),
        changed_operator("_odd"),
        changed_function(_inductor, "aoti_load_package", ("folder",)),
        changed_function(_inductor, "aoti_load_folder", ()),
        changed_attribute(nn.Linear(1, 1), "_children", dict),
        changed_attribute(nn.Linear(1, 1), "_modules", list),
    ]
    parts = [
        "_int_mm is now aten::_int_mm(Tensor self",
        "torch.ops.aten._odd is gone",
        "no parameter folder",
        "aoti_load_folder is gone",
        "Linear._children is no attribute",
        "_modules is a dict, no list",
    ]
    for line, part in zip(said, parts, strict=True):
        assert part in line and "\n" not in line


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_a_package_computes_what_was_traced(tmp_path: Path) -> None:
    """Compiled ahead, with frozen weights, and read back; reference: the layer itself."""
    layer, images = nn.Linear(3, 2).eval(), torch.randn(4, 3)
    with torch.no_grad():
        program = torch.export.export(layer, (images,))
        private.package_ahead(program, tmp_path / "layer.pt2")
        torch.testing.assert_close(private.open_package(tmp_path / "layer.pt2")(images), layer(images))
    with pytest.raises((RuntimeError, OSError)):
        private.open_package(tmp_path / "none.pt2")
