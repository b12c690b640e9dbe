"""Files beside an ONNX graph that hold weights of it, read without the onnx package.

A graph names the file of each such tensor itself. One that names another file than ``model.onnx.data`` beside
it would read what no digest covers, anywhere on the machine. Source: onnx.proto (IR version 3 and later).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from tesela.core.errors import WeightsError

#: Ways from a model to its tensors: by message, the numbers of the fields that hold further ones.
FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
#: Wire types of protobuf: a number, 8 bytes, a length and as many bytes, 4 bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def check_external(path: Path) -> None:
    """Refuse a graph with weights in another file than the one beside it, or whose file is missing.

    Raises:
        WeightsError: it names another file, there is none, or it is no graph.
    """
    beside = path.with_name(f"{path.name}.data")
    try:
        found = external_files(path)
    except (ValueError, IndexError) as error:
        raise WeightsError(
            f"{path} is damaged or no ONNX graph: {error}", hint="export the model again"
        ) from error
    for name in sorted(found - {beside.name}):
        raise WeightsError(
            f"{path} reads weights from {name!r}, a file that is not covered by its digests",
            hint=f"weights of a program lie in {beside.name} beside it alone; export the model again",
        )
    if found and not beside.is_file():
        raise WeightsError(
            f"{path} reads weights from {beside.name}, which is missing",
            hint="copy the whole folder, or export the model again",
        )


def external_files(path: Path) -> set[str]:
    """Names of the files, as the graph gives them, that hold weights of it.

    Raises:
        ValueError: the file is no protobuf message.
        IndexError: likewise, it ends too early.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _locations(content)


def _locations(content: mmap.mmap) -> set[str]:
    found: set[str] = set()
    todo = [("ModelProto", 0, len(content))]
    while todo:
        kind, start, end = todo.pop()
        inside = FIELDS[kind]
        for number, first, last in _fields(content, start, end):
            further = inside.get(number)
            if further == "StringStringEntryProto":
                entry = {key: content[low:high] for key, low, high in _fields(content, first, last)}
                if entry.get(1) == b"location":
                    found.add(entry.get(2, b"").decode("utf-8", "backslashreplace"))
            elif further is not None:
                todo.append((further, first, last))
    return found


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of each field of a message that holds bytes."""
    place = start
    while place < end:
        key, place = _varint(content, place)
        wire = key & 7
        if wire == _BYTES:
            size, place = _varint(content, place)
            if place + size > end:
                raise ValueError(f"a field ends behind its message, at byte {place}")
            yield key >> 3, place, place + size
            place += size
        elif wire == _VARINT:
            _, place = _varint(content, place)
        elif wire in (_EIGHT, _FOUR):
            place += 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"there is no field of kind {wire}, at byte {place}")


def _varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place behind it."""
    byte = content[place]
    if byte < 0x80:
        return byte, place + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift > 63:
            raise ValueError(f"a number is too long, at byte {place}")
        place += 1
        byte = content[place]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, place + 1
