"""Readers of tensors in safetensors, sharded files, .pth and .bin without code, and .npz.

What a file claims is checked before memory is asked for. Of a pickle nothing is run
(``tesela.checkpoints.pickled``).

Odd: an .npz is read member by member and not by ``numpy.load``, because a header of a few bytes may claim any
size and a compressed member may grow a thousandfold.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from tesela.checkpoints.pickled import load_pickle
from tesela.checkpoints.state import Weights, weights_in
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors, read_tensors

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
#: An archive may unpack to so many bytes, and to so many times its own size beyond.
ROOM, GROWTH = 1 << 30, 100
#: More arrays than any network has, and more bytes than the header of any array.
MOST_ARRAYS, LONGEST_HEADER = 100_000, 10_000

DOWNLOAD_AGAIN = "copy or download it again"

#: Files of weights in a folder, the safest first.
USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_file(path: Path) -> Weights:
    """The weights in one file, by its ending.

    Raises:
        WeightsError: it is damaged, too large for what it is, holds more than tensors, or has another ending.
    """
    if not path.is_file():
        raise WeightsError(
            f"there is no file {path}", hint="check the path; a sharded checkpoint needs all its files"
        )
    if path.suffix == ".safetensors":
        return Weights(tensors=read_tensors(path), files=[path])
    if path.suffix in PICKLES:
        return weights_in(load_pickle(path), path)
    if path.suffix == ".npz":
        return Weights(tensors=read_npz(path), files=[path])
    raise WeightsError(
        f"{path} is no weight file that is known",
        hint="known endings are .safetensors, .npz, " + ", ".join(PICKLES),
    )


def read_sharded(index: Path) -> Tensors:
    """The tensors of a checkpoint in several files, as its index.json lists them.

    Raises:
        WeightsError: a file is missing or does not hold what the index says.
    """
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        listed = {str(name): str(file) for name, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index} cannot be read: it is damaged or no index of weights", hint=DOWNLOAD_AGAIN
        ) from error
    tensors: Tensors = {}
    for file in sorted(set(listed.values())):
        if Path(file).name != file:
            raise WeightsError(
                f"{index} points outside of its folder: {file}",
                hint="do not use files from where this one is from",
            )
        shard = read_file(index.parent / file).tensors
        wanted = {name for name, place in listed.items() if place == file}
        if shard.keys() != wanted:
            odd = ", ".join(sorted(shard.keys() ^ wanted)[:4])
            raise WeightsError(
                f"{index.parent / file} does not hold what {index.name} lists: {odd}", hint=DOWNLOAD_AGAIN
            )
        tensors |= shard
    return tensors


def read_npz(path: Path) -> Tensors:
    """The arrays of an .npz, floating-point and integer ones, as tensors.

    Raises:
        WeightsError: it is damaged, an array is of objects, or it would unpack to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total, room = sum(member.file_size for member in members), ROOM + GROWTH * path.stat().st_size
            if total > room or len(members) > MOST_ARRAYS:
                raise WeightsError(
                    f"{path} would unpack to {total:,} bytes in {len(members):,} arrays, more than is "
                    "reasonable for a file of its size",
                    hint="do not use it unless you know where it is from; save it again uncompressed",
                )
            return {member.filename.removesuffix(".npy"): _array(archive, member, path) for member in members}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"{path} cannot be read: it is truncated, damaged or no .npz ({error})", hint=DOWNLOAD_AGAIN
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Tensor:
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream, max_header_size=LONGEST_HEADER)
        if dtype.hasobject or dtype.kind not in "fiub":
            raise WeightsError(
                f"{path} holds {member.filename} of type {dtype}, which is no number",
                hint="weights are numbers only",
            )
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - stream.tell():
            raise WeightsError(
                f"{path} is damaged: {member.filename} claims {size:,} bytes and has others",
                hint=DOWNLOAD_AGAIN,
            )
        data = np.frombuffer(bytearray(stream.read(size)), dtype=dtype)
    array = data.reshape(shape[::-1]).T if fortran else data.reshape(shape)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C", copy=True))


def read_weights(folder: Path, weights: Path | None = None) -> Weights:
    """The weights of a folder, of the safest form that is there.

    Raises:
        WeightsError: there are none, or they are damaged.
    """
    if weights is not None:
        return read_file(weights)
    for name in USUAL_NAMES:
        path = folder / name
        if path.is_file() and name.endswith(".json"):
            shards = sorted(folder / file for file in set(read_mapping(path)["weight_map"].values()))
            return Weights(tensors=read_sharded(path), files=[path, *shards])
        if path.is_file():
            return read_file(path)
    if any(folder.glob("*.gguf")):
        raise WeightsError(
            f"{folder} holds quantised weights alone (GGUF), which are not read",
            hint="give the model they were made of, as .safetensors",
        )
    parts = sorted(path.name for path in folder.glob("*-of-*.*"))
    if parts:
        raise WeightsError(
            f"{folder} holds a checkpoint in parts ({parts[0]}, ...) without the index that lists them",
            hint="download the .index.json too; a sharded checkpoint needs all its files",
        )
    raise WeightsError(f"{folder} holds no weights", hint="it needs one of " + ", ".join(USUAL_NAMES))


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        WeightsError: it is damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: it is damaged or no JSON", hint=DOWNLOAD_AGAIN) from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds no mapping", hint=DOWNLOAD_AGAIN)
    return value


def license_of(folder: Path) -> str:
    """The licence that the front matter of README.md names."""
    card = folder / "README.md"
    if card.is_file():
        front = re.match(
            r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL
        )
        named = re.search(r"^license:\s*['\"]?([\w.\-]+)", front[1], flags=re.MULTILINE) if front else None
        return named[1] if named else "unknown"
    return "unknown"
