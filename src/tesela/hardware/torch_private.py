"""Private torch functions in use, each with the reason and a fallback.

Public functions would be slower or do not exist. Every use is tested against its public meaning, so that a
PyTorch in which one of them changed is noticed by the tests and not by a wrong result.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

_M = TypeVar("_M", bound=nn.Module)


def linear_bf16(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., I) times weight (O, I) transposed, plus bias, in bf16 on a CPU.

    oneDNN's fused operator, which adds the bias inside the product; ``nn.functional.linear`` copies it out
    first.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None:
        return nn.functional.linear(values, weight, bias)
    result: Tensor = operator(values, weight, bias, "none", [], "")
    return result


def packed_weight(weight: Tensor, rows: int) -> Tensor | None:
    """A bf16 weight (O, I) in oneDNN's own order, for ``linear_bf16``; None where that is not possible.

    Without it the operator orders the weight anew at every call.

    Args:
        weight: of a dense layer, on the CPU.
        rows: how many rows (of tokens) it will usually be multiplied with; others work too.
    """
    operators: Any = torch.ops.mkldnn
    reorder = getattr(operators, "_reorder_linear_weight", None)
    supported = getattr(operators, "_is_mkldnn_bf16_supported", None)
    if reorder is None or supported is None or not hasattr(operators, "_linear_pointwise"):
        return None
    if not torch.backends.mkldnn.is_available() or not supported():  # type: ignore[no-untyped-call]
        return None
    result: Tensor = reorder(weight.detach(), rows)
    return result


def int8_product(left: Tensor, right: Tensor) -> Tensor:
    """The exact product (M, N), int32, of int8 matrices (M, K) and (K, N); slow where PyTorch has none."""
    operator = getattr(torch, "_int_mm", None)
    if operator is None:
        return (left.double() @ right.double()).int()
    result: Tensor = operator(left, right)
    return result


def softmax_backward(gradient: Tensor, softmax: Tensor) -> Tensor:
    """The gradient of a softmax's input along the last axis, from that of its output.

    One pass instead of three.
    """
    operator = getattr(torch, "_softmax_backward_data", None)
    if operator is None:
        return (gradient - (gradient * softmax).sum(-1, keepdim=True)) * softmax
    result: Tensor = operator(gradient, softmax, -1, gradient.dtype)
    return result


def lerp_all_(targets: Sequence[Tensor], sources: Sequence[Tensor], weight: float) -> None:
    """Move each target by ``weight`` of the way to its source, in place; one call for hundreds of tensors."""
    operator = getattr(torch, "_foreach_lerp_", None)
    if operator is not None:
        operator(list(targets), list(sources), weight)
        return
    for target, source in zip(targets, sources, strict=True):
        target.lerp_(source, weight)


def stop_workers(loader: DataLoader[Any]) -> None:
    """End the worker processes that a loader keeps between epochs.

    Without this they live until it is collected.
    """
    running = getattr(loader, "_iterator", None)
    stop = getattr(running, "_shutdown_workers", None)
    if stop is not None:
        stop()
    if running is not None:
        loader._iterator = None


def with_child(module: _M, name: str, child: nn.Module) -> _M:
    """A shallow copy of ``module`` with another child of that name.

    Parameters and all other children are shared.
    """
    twin = copy.copy(module)
    twin._modules = {**module._modules, name: child}
    return twin


def share_parameters(module: nn.Module, other: nn.Module) -> None:
    """Share the parameters of ``other`` with ``module``, even if a property has the name of one."""
    module._parameters.update(other._parameters)


def own_parameter(module: nn.Module, name: str) -> nn.Parameter:
    """A parameter of ``module`` itself, also where a property of the class has its name."""
    found = module._parameters[name]
    assert found is not None
    return found


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of ``module`` is the forward of ``kind`` alone, so that its weight may be read instead.

    It is not with hooks (pruning, the old weight norm, sharding, offloading and quantisation work by them),
    with another forward in its place, or as another class.
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in vars(module)
        and not any(getattr(module, name, None) for name in hooks)
    )


def with_globals(func: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """The same function, but with other values of global names that it reads.

    ``nn.MultiheadAttention`` calls the fused kernel by a global name inside a function of 300 lines; this
    watches the call.
    """
    code: types.CodeType = func.__code__
    return types.FunctionType(
        code,
        {**func.__globals__, **names},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )


def package_ahead(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compile a traced program ahead of time into an AOTInductor package, its weights frozen.

    The documented interface stands in a private module; without it there is no package.
    """
    from torch import _inductor  # the compiler is slow to import

    _inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs={"freezing": True})


def open_package(path: Path) -> Any:
    """The function of an AOTInductor package.

    Raises:
        RuntimeError: it cannot be loaded here.
    """
    from torch import _inductor

    return _inductor.aoti_load_package(str(path))
