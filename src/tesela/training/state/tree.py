"""A training state as JSON plus named tensors, and back.

Dictionaries with any keys, lists, tuples, numbers, strings and tensors go in; nothing else, and no pickle.
Odd: dictionaries whose keys are not all strings (optimizers number their parameters) become lists of pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TENSOR, _TUPLE, _PAIRS = "$tensor", "$tuple", "$pairs"


def flatten(value: Any, *, path: str = "") -> tuple[Any, dict[str, Tensor]]:
    """The JSON skeleton of ``value`` and its tensors by path."""
    tensors: dict[str, Tensor] = {}
    return _down(value, path, tensors), tensors


def unflatten(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``flatten``."""
    if isinstance(skeleton, list):
        return [unflatten(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if _TENSOR in skeleton:
        return tensors[skeleton[_TENSOR]]
    if _TUPLE in skeleton:
        return tuple(unflatten(item, tensors) for item in skeleton[_TUPLE])
    if _PAIRS in skeleton:
        return {key: unflatten(item, tensors) for key, item in skeleton[_PAIRS]}
    return {key: unflatten(item, tensors) for key, item in skeleton.items()}


def _down(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _down(item, _join(path, key), tensors) for key, item in value.items()}
        return {_PAIRS: [[key, _down(item, _join(path, key), tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_down(item, _join(path, index), tensors) for index, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if not hasattr(value, "detach"):
        raise TypeError(f"{path}: a checkpoint cannot hold {type(value).__name__}")
    tensors[path] = value.detach()
    return {_TENSOR: path}


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)
