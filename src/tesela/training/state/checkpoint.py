"""Checkpoints: one safetensors file each, whole or not there, with a digest per tensor.

The tensors are named by their place in the state; everything else is JSON in the file's metadata, together
with each tensor's SHA-256, type and shape, and a seal over all of that. So a flipped bit, a cut-off end or
two swapped tensors are found and named, and loading falls back to the newest file that is whole. No pickle is
involved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.errors import WeightsError
from tesela.core.failpoint import failpoint
from tesela.core.files import io_call, sha256_bytes, storage_errors, write_atomic
from tesela.training.state.tree import flatten, unflatten

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_FORMAT = "tesela-checkpoint/1"
BOOK = "checkpoint"
_NAME = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A checkpoint that was read.

    Attributes:
        path: its file.
        step: steps done when it was saved.
        state: what was saved.
        damaged: what was wrong with newer files, one line each.
    """

    path: Path
    step: int
    state: dict[str, Any]
    damaged: list[str] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run, newest last.

    Args:
        folder: where they lie.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def steps(self) -> list[int]:
        """The steps that have a file under its final name, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(child.name) for child in self.folder.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    def path(self, step: int) -> Path:
        """The file of one step."""
        return self.folder / f"step-{step:09d}.safetensors"

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after ``step`` steps, then drop what is older than the newest few.

        Raises:
            StorageError: it could not be written; earlier checkpoints are untouched.
        """
        target = self.path(step)
        failpoint("checkpoint.before_write")
        save_state(target, state)
        failpoint("checkpoint.after_write")
        self._prune(newest=step)
        failpoint("checkpoint.after_prune")
        return target

    @property
    def best(self) -> Path:
        """The weights with the best validation score, where these are kept."""
        return self.folder / "best.safetensors"

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write the weights with the best validation score so far.

        Raises:
            StorageError: it could not be written; earlier ones are untouched.
        """
        save_state(self.best, state)

    def load(self, step: int) -> Loaded:
        """The checkpoint of one step.

        Raises:
            WeightsError: it is missing or damaged.
        """
        path = self.path(step)
        return Loaded(path=path, step=step, state=read_checkpoint(path))

    def load_newest(self) -> Loaded | None:
        """The newest checkpoint that is whole, or None where none was ever saved.

        Raises:
            WeightsError: there are checkpoints, and all of them are damaged.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                return Loaded(path=path, step=step, state=read_checkpoint(path), damaged=damaged)
            except WeightsError as error:
                damaged.append(error.message)
        if damaged:
            raise WeightsError(
                "no checkpoint is whole: " + "; ".join(damaged),
                hint="start the training again with another --out",
            )
        return None

    def _prune(self, *, newest: int) -> None:
        older = [step for step in self.steps() if step != newest]
        with storage_errors(self.folder, needed=self.path(newest).stat().st_size):
            for step in older[: max(0, len(older) - self._keep + 1)]:
                io_call("unlink", self.path(step).unlink)


class SharedCheckpoints(Checkpoints):
    """Checkpoints that another rank writes, and this one reads."""

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write nothing."""
        del state
        return self.path(step)

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write nothing."""


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Put ``state`` under ``path``, atomically.

    Raises:
        StorageError: the file system refused; what was there before is untouched.
    """
    write_atomic(path, encode(state))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``, checked bit by bit.

    Raises:
        WeightsError: it is missing, cut off or damaged; the message names the tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"checkpoint {path.name} cannot be read: {error.strerror}",
            hint="check the path and its permissions",
        ) from error
    return decode_checkpoint(data, name=path.name)


def encode(state: Mapping[str, Any]) -> bytes:
    """``state`` as the bytes of a checkpoint; equal states give equal bytes."""
    import safetensors.torch

    skeleton, found = flatten(dict(state))
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in found.items()}
    labels = {name: _label(tensor) for name, tensor in tensors.items()}
    tree, digests = json.dumps(skeleton), json.dumps(labels)
    book = {"format": CHECKPOINT_FORMAT, "tree": tree, "digests": digests, "seal": _seal(tree, digests)}
    # one key, for the library shuffles several
    return bytes(safetensors.torch.save(tensors, {BOOK: json.dumps(book)}))


def decode_checkpoint(data: bytes, *, name: str) -> dict[str, Any]:
    """The state in the bytes of a checkpoint.

    Raises:
        WeightsError: the bytes are not what ``encode`` made; ``name`` says whose they are.
    """
    import safetensors
    import safetensors.torch

    metadata = _metadata(data, name)
    tree, digests = metadata.get("tree", ""), metadata.get("digests", "")
    if metadata.get("format") != CHECKPOINT_FORMAT or metadata.get("seal") != _seal(tree, digests):
        raise _damaged(name, "its header is damaged")
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise _damaged(name, f"its tensors cannot be read ({error})") from error
    labels: dict[str, str] = json.loads(digests)
    wrong = [key for key in labels if key not in tensors or _label(tensors[key]) != labels[key]]
    wrong += [f"{key} (not expected)" for key in tensors if key not in labels]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise _damaged(name, f"damaged tensors: {shown}")
    state: dict[str, Any] = unflatten(
        json.loads(tree), {key: tensor.clone() for key, tensor in tensors.items()}
    )
    return state


def _metadata(data: bytes, name: str) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise _damaged(name, f"it is cut off or its header is damaged ({len(data):,} bytes)")
    try:
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        metadata: dict[str, str] = dict(json.loads(header["__metadata__"][BOOK]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _damaged(name, "its header is damaged") from error
    if all(isinstance(end, int) for end in ends) and max(ends, default=0) > len(data) - 8 - length:
        lost = [
            key
            for key, entry in header.items()
            if key != "__metadata__" and entry["data_offsets"][1] > len(data) - 8 - length
        ]
        raise _damaged(
            name, f"it is cut off at {len(data):,} bytes; lost or cut tensors: {', '.join(lost[:5])}"
        )
    return metadata


def _label(tensor: Tensor) -> str:
    """Type, shape and SHA-256 of one tensor."""
    import torch

    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {list(tensor.shape)} {sha256_bytes(raw.data)}"


def _seal(tree: str, digests: str) -> str:
    return sha256_bytes(f"{CHECKPOINT_FORMAT}\n{tree}\n{digests}".encode())


def _damaged(name: str, what: str) -> WeightsError:
    return WeightsError(
        f"checkpoint {name} is damaged: {what}",
        hint="the newest checkpoint that is whole is used; check the disk",
    )
