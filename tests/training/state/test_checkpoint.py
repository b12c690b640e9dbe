"""Checkpoints survive what a disk can do to them (reliability R3 and R4)."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tesela.core import files
from tesela.core.errors import StorageError, WeightsError
from tesela.training.state.checkpoint import Checkpoints, decode_checkpoint, encode, read_checkpoint


def make_state(seed: int) -> dict[str, Any]:
    """A state with everything that a real one holds.

    Number keys, tuples, scalars, several types, shared storage.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 5, generator=generator)
    return {
        "progress": {"step": seed, "best": None, "sums": {"loss": 0.1 + seed}, "odd": float("inf")},
        "model": {
            "a.weight": weight,
            "a.twin": weight,
            "b.bias": torch.randn(3, generator=generator).to(torch.bfloat16),
        },
        "optimizers": [
            {
                "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight.t()}},
                "param_groups": [{"betas": (0.9, 0.999)}],
            }
        ],
        "ema": None,
    }


def same(left: Any, right: Any) -> bool:
    """Equality of nested states, tensors bit for bit and with their types."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Reference: the state itself, compared with types and bits."""
    book = Checkpoints(tmp_path)
    book.save(5, make_state(5))
    loaded = book.load_newest()
    assert loaded is not None
    assert loaded.step == 5
    assert same(loaded.state, make_state(5))


def test_equal_states_give_equal_bytes() -> None:
    """Reference: the bytes of the first encoding."""
    assert encode(make_state(1)) == encode(make_state(1))
    assert encode(make_state(1)) != encode(make_state(2))


def test_only_the_newest_two_stay(tmp_path: Path) -> None:
    """Reference: the list of steps by hand."""
    book = Checkpoints(tmp_path)
    for step in (1, 2, 3, 4):
        book.save(step, make_state(step))
    assert book.steps() == [3, 4]


def test_nothing_to_load(tmp_path: Path) -> None:
    """A run that died before its first checkpoint begins anew."""
    assert Checkpoints(tmp_path / "none").load_newest() is None


def test_every_flipped_bit_is_found() -> None:
    """R4: 2,000 random positions and all of the first 600 bytes.

    A flip that goes unnoticed would return a state.
    """
    data = encode(make_state(3))
    generator = random.Random(0)
    places = [generator.randrange(len(data) * 8) for _ in range(2000)] + list(range(600 * 8))
    for place in places:
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << (place % 8)
        with pytest.raises(WeightsError, match="x is damaged"):
            decode_checkpoint(bytes(damaged), name="x")


def test_every_truncation_is_found() -> None:
    """R4: cut at every 7th byte."""
    data = encode(make_state(3))
    for length in range(0, len(data), 7):
        with pytest.raises(WeightsError, match="x is damaged"):
            decode_checkpoint(data[:length], name="x")


def test_a_damaged_tensor_is_named() -> None:
    """The flipped byte lies in the tensor that the file's own table of offsets says."""
    data = bytearray(encode(make_state(3)))
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    start, _ = table["model/b.bias"]["data_offsets"]
    data[8 + length + start] ^= 4
    with pytest.raises(WeightsError, match=r"damaged tensors: model/b\.bias(\n|$)"):
        decode_checkpoint(bytes(data), name="x")


def test_swapped_tensors_are_named() -> None:
    """Two tensors of one shape change places in the file; both are named."""
    data = encode({"p": torch.tensor([1.0, 2.0]), "q": torch.tensor([3.0, 4.0])})
    length = int.from_bytes(data[:8], "little")
    body = data[8 + length :]
    with pytest.raises(WeightsError, match="damaged tensors: p, q"):
        decode_checkpoint(data[: 8 + length] + body[8:16] + body[:8], name="x")


def test_loading_falls_back_to_the_newest_that_is_whole(tmp_path: Path) -> None:
    """The newest is cut off: the one before is used and the damage is told."""
    book = Checkpoints(tmp_path)
    book.save(1, make_state(1))
    book.save(2, make_state(2))
    path = book.path(2)
    path.write_bytes(path.read_bytes()[:-5])
    loaded = book.load_newest()
    assert loaded is not None
    assert loaded.step == 1
    assert same(loaded.state, make_state(1))
    assert "step-000000002" in loaded.damaged[0]
    assert "cut off" in loaded.damaged[0]


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    """Silently beginning anew would overwrite what might be mended."""
    book = Checkpoints(tmp_path)
    book.save(1, make_state(1))
    book.path(1).write_bytes(b"")
    with pytest.raises(WeightsError, match="no checkpoint is whole"):
        book.load_newest()


class Injector:
    """Makes the n-th operating-system call of the writer fail (SQLite's method)."""

    def __init__(self, fail_at: int, code: int) -> None:
        self.calls, self._fail_at, self._code = 0, fail_at, code

    def __call__(self, operation: str) -> None:
        self.calls += 1
        if self.calls == self._fail_at:
            raise OSError(self._code, os.strerror(self._code), operation)


def count_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Calls of one save that prunes as well."""
    counter = Injector(0, 0)
    book = Checkpoints(folder)
    for step in (1, 2):
        book.save(step, make_state(step))
    monkeypatch.setattr(files, "before_io", counter)
    book.save(3, make_state(3))
    monkeypatch.undo()
    return counter.calls


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES], ids=errno.errorcode.get
)
def test_every_failing_call_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """R3: for every n, the n-th call fails.

    Whatever lies under a final name is whole, and at least step 2 loads.
    """
    calls = count_calls(tmp_path / "count", monkeypatch)
    assert calls >= 8, "mkdir, open, write, fsync, rename, open, fsync of the folder, unlink"
    for n in range(1, calls + 1):
        folder = tmp_path / f"{n}"
        book = Checkpoints(folder)
        for step in (1, 2):
            book.save(step, make_state(step))
        monkeypatch.setattr(files, "before_io", Injector(n, code))
        with pytest.raises(StorageError) as caught:
            book.save(3, make_state(3))
        monkeypatch.undo()
        check_after_failure(book, caught.value, code)


def check_after_failure(book: Checkpoints, error: StorageError, code: int) -> None:
    """All files under final names are whole, none is half written, the message has the bytes where space
    is the matter."""
    assert not [child for child in book.folder.iterdir() if child.name.endswith(".part")]
    for step in book.steps():
        assert same(read_checkpoint(book.path(step)), make_state(step))
    loaded = book.load_newest()
    assert loaded is not None
    assert loaded.step in (2, 3)
    if code in (errno.ENOSPC, errno.EDQUOT):
        assert "bytes needed" in error.message
        assert "free" in error.message
    assert error.hint


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: a system that writes 100 bytes at a time still gets the whole file."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:100]))
    book = Checkpoints(tmp_path)
    book.save(1, make_state(1))
    monkeypatch.undo()
    assert same(read_checkpoint(book.path(1)), make_state(1))


def test_a_short_write_and_then_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: half of the bytes go through, then there is no space; the checkpoint before still loads."""
    book = Checkpoints(tmp_path)
    book.save(1, make_state(1))
    real = os.write
    done: list[int] = []

    def write(descriptor: int, data: memoryview) -> int:
        if done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(1)
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError) as caught:
        book.save(2, make_state(2))
    monkeypatch.undo()
    assert book.steps() == [1]
    check_one(book, caught.value)


def check_one(book: Checkpoints, error: StorageError) -> None:
    """Step 1 loads, and the message has the numbers."""
    loaded = book.load_newest()
    assert loaded is not None
    assert loaded.step == 1
    assert f"{len(encode(make_state(2))):,} bytes needed" in error.message


def test_what_a_checkpoint_cannot_hold_is_refused() -> None:
    """Never a pickle: an unknown type is an error with its place."""
    with pytest.raises(TypeError, match="model/x: a checkpoint cannot hold set"):
        encode({"model": {"x": {1, 2}}})
