"""Weights in a safetensors file: written with digests, read with every defect named.

Odd: a digest covers a tensor's bytes only. Name and shape are checked against the network, so two tensors
that were swapped fail by their digests, and a tensor of another shape fails before. Tensors are copied out of
the file into memory of their own: where a tensor begins in the file decides which kernel multiplies with it,
and so the last bit of a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from tesela.core.errors import WeightsError
from tesela.core.files import io_call, sha256_bytes
from tesela.core.pathnames import path_text
from tesela.models.model import file_names, load_names

Tensors = dict[str, Tensor]

COPY_AGAIN = "copy it again from where it was whole, or train again"


def tensors_of(model: nn.Module) -> Tensors:
    """All weights and persistent buffers, contiguous, on the CPU, by their names in files."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in file_names(model, model.state_dict()).items()
    }


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's bytes."""
    return {
        name: sha256_bytes(tensor.reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
    }


def save_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file; the caller sees to it that it is whole."""
    try:
        io_call("save_tensors", lambda: save_file(tensors, path, metadata={"format": "pt"}))
        io_call("chmod", lambda: path.chmod(0o644))  # the library leaves it readable for its owner only
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> Tensors:
    """All tensors of a safetensors file.

    Raises:
        WeightsError: it is truncated or no such file.
    """
    try:
        tensors: Tensors = {
            name: tensor.clone() for name, tensor in io_call("read_tensors", lambda: _loaded(path)).items()
        }
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read: it is truncated or damaged ({error})", hint=COPY_AGAIN
        ) from error
    return tensors


def _loaded(path: Path) -> Tensors:
    """The file's tensors, mapped; read where the library takes no path that is not UTF-8."""
    found: Tensors = load_file(path) if path_text(path) == path.as_posix() else load(path.read_bytes())
    return found


def load_weights(model: nn.Module, tensors: Tensors, *, source: str) -> None:
    """Make ``tensors``, by their names in files, the weights of ``model``, which may be on the meta device.

    Raises:
        WeightsError: naming the tensors that are missing, extra or of another shape or kind.
    """
    wanted = file_names(model, model.state_dict())
    faults = [
        _fault("missing", sorted(wanted.keys() - tensors.keys())),
        _fault("not of this model", sorted(tensors.keys() - wanted.keys())),
        _fault("of another shape", _misshaped(wanted, tensors)),
    ]
    if any(faults):
        raise WeightsError(
            f"{source} does not fit the model: " + "; ".join(fault for fault in faults if fault),
            hint=(
                "the weights are of another model or configuration; use the config.json that was written "
                "with them"
            ),
        )
    model.load_state_dict(load_names(model, tensors), assign=True)


def check_digests(tensors: Mapping[str, Tensor], expected: Mapping[str, str], *, source: str) -> None:
    """Compare every tensor with its digest.

    Raises:
        WeightsError: naming the damaged tensors, or those without a digest.
    """
    found = digests(tensors)
    unknown = sorted(found.keys() - expected.keys())
    damaged = sorted(name for name in found if name in expected and found[name] != expected[name])
    faults = [_fault("damaged", damaged), _fault("without a digest", unknown)]
    if any(faults):
        raise WeightsError(
            f"{source} is damaged: " + "; ".join(fault for fault in faults if fault), hint=COPY_AGAIN
        )


def _misshaped(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} ({_form(tensors[name])} instead of {_form(tensor)})"
        for name, tensor in wanted.items()
        if name in tensors
        and (
            tensors[name].shape != tensor.shape
            or tensors[name].is_floating_point() != tensor.is_floating_point()
        )
    ]


def _form(tensor: Tensor) -> str:
    size = "x".join(str(side) for side in tensor.shape) or "scalar"
    return size if tensor.is_floating_point() else f"{size} {str(tensor.dtype).removeprefix('torch.')}"


def _fault(kind: str, names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{kind}: {shown}" if names else ""
