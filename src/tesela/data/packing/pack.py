"""Pack any source of classes as shards, a whole shard at a time.

A pack that ended early goes on at the next shard.

Rows are put into shards in a random order that seed and split give, so that a shard is a sample of all
classes and reading a few at a time is as good as reading at random. Images that cannot be read are left out,
and listed in ``unreadable.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.begun import refuse_other_settings
from tesela.core.errors import DataError, UsageError
from tesela.core.files import read_json, write_atomic, write_json
from tesela.data.digest import data_digest
from tesela.data.packing.shard import ShardKind, packed_rows, write_rows, write_tar
from tesela.data.random import permutation
from tesela.data.scan import Unreadable, refuse_too_many
from tesela.data.source import Source

INDEX, BOOK, SETTINGS_OF_PACK = "index.json", "_index", "_pack.json"
SHARDS_FORMAT = "tesela-shards/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackReport:
    """What was packed.

    Attributes:
        out: the folder.
        images: of each split.
        shards: files.
        written: how many of them this process wrote.
        unreadable: images left out.
    """

    out: str
    images: dict[str, int]
    shards: int
    written: int
    unreadable: int


def pack(
    source: Source,
    out: Path,
    *,
    rows: int = 1000,
    kind: ShardKind = "tar",
    seed: int = 0,
    max_unreadable: float = 0.01,
    tell: Callable[[int], None] | None = None,
) -> PackReport:
    """Write a source as shards.

    Args:
        source: with its splits.
        out: the folder; one in which a pack with the same settings ended early is taken up.
        rows: images of a shard.
        kind: tar archives in WebDataset's layout with an index, or Parquet files.
        seed: of the order.
        max_unreadable: largest share of images that are left out.
        tell: is told how many images are done.

    Raises:
        UsageError: the folder holds something else, or there are masks.
        ConfigError: it was begun with other settings or data.
        DataError: too many images are unreadable.
    """
    if source.masks is not None:
        raise UsageError(
            "masks cannot be packed, only images with a class", hint="train on the folder as it is"
        )
    if rows < 1:
        raise UsageError(
            f"a shard has at least one image, not {rows}", hint="tesela data pack DATA --rows 1000"
        )
    _begin(out, {"rows": rows, "kind": kind, "seed": seed, "data": data_digest(source)})
    total, done, written = sum(len(items) for items in source.splits.values()), 0, 0
    left_out: list[Unreadable] = []
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, items in source.splits.items():
        order, places = permutation(seed, 0, len(items), f"pack {split}"), splits.setdefault(split, [])
        first = 0
        for number, begin in enumerate(range(0, len(items), rows)):
            chosen = order[begin : begin + rows]
            name = f"{split}-{number:06d}.{kind}"
            book = out / BOOK / f"{split}-{number:06d}.json"
            if not (book.exists() and (out / name).exists()):
                images, bad = packed_rows(items, chosen.tolist())
                if kind == "tar":
                    index = write_tar(out / name, images, first=first)
                    write_atomic(book.with_suffix(".idx"), index.tobytes())
                else:
                    write_rows(out / name, images, source.labels)
                size = (out / name).stat().st_size
                facts = {"file": name, "bytes": size, "rows": len(images)}
                write_json(book, {**facts, "unreadable": [asdict(one) for one in bad]})
                written += 1
            found = read_json(book)
            left_out += [Unreadable(**one) for one in found.pop("unreadable")]
            places.append(found)
            first += found["rows"]
            done += len(chosen)
            if tell is not None:
                tell(done)
    if left_out:
        write_json(out / "unreadable.json", [asdict(one) for one in left_out])
    refuse_too_many(left_out, total, limit=max_unreadable)
    told = {"format": SHARDS_FORMAT, "kind": kind, "labels": list(source.labels), "splits": splits}
    write_json(out / INDEX, {**told, "channels": source.channels, "seed": seed})  # last: the pack is whole
    return PackReport(
        out=str(out),
        images={split: sum(one["rows"] for one in places) for split, places in splits.items()},
        shards=sum(map(len, splits.values())),
        written=written,
        unreadable=len(left_out),
    )


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder with anything but an earlier pack of the same settings."""
    file = out / SETTINGS_OF_PACK
    if file.exists():
        refuse_other_settings(out, read_json(file), settings)
    elif out.exists() and (not out.is_dir() or any(not one.name.startswith(".") for one in out.iterdir())):
        raise UsageError(f"{out} is not empty, and no shards were packed there", hint="choose another --out")
    else:
        write_json(file, settings)


def read_index(book: Path, rows: int) -> NDArray[np.int64]:
    """(N, 3) offsets, bytes and classes of a shard.

    Raises:
        DataError: the index is missing or cut off.
    """
    data = book.read_bytes() if book.exists() else b""
    if len(data) != 24 * rows:
        raise DataError(f"the index {book.name} of a shard is missing or cut off", hint="pack the data again")
    return np.frombuffer(data, np.int64).reshape(rows, 3)
