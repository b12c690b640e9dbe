"""Pack any source of classes as shards, a whole shard at a time.

A pack that ended early goes on at the next shard.

Rows are put into shards in a random order that seed and split give, so that a shard is a sample of all
classes and reading a few at a time is as good as reading at random. Images that cannot be read are left out,
and listed in ``unreadable.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.begun import refuse_other_settings
from tesela.core.errors import DataError, UsageError
from tesela.data.digest import data_digest
from tesela.data.packing.shard import ShardKind, packed_rows, write_rows, write_tar
from tesela.data.random import permutation
from tesela.data.scan import Unreadable, refuse_too_many
from tesela.data.source import Source
from tesela.data.storage.place import DataPlace, json_of, put, put_json, sizes_of
from tesela.data.storage.remote import RemotePath

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
    out: DataPlace,
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
        out: the folder, or an address; one in which a pack with the same settings ended early is taken up.
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
            found = json_of(book)
            if found is None or sizes_of([out / name]) != [found["bytes"]]:
                images, bad = packed_rows(items, chosen.tolist())
                if kind == "tar":
                    index = write_tar(out / name, images, first=first)
                    put(out / BOOK / f"{split}-{number:06d}.idx", index.tobytes())
                else:
                    write_rows(out / name, images, source.labels)
                facts = {"file": name, "bytes": sizes_of([out / name])[0], "rows": len(images)}
                found = {**facts, "unreadable": [asdict(one) for one in bad]}
                put_json(book, found)
                written += 1
            left_out += [Unreadable(**one) for one in found.pop("unreadable")]
            places.append(found)
            first += found["rows"]
            done += len(chosen)
            if tell is not None:
                tell(done)
    if left_out:
        put_json(out / "unreadable.json", [asdict(one) for one in left_out])
    refuse_too_many(left_out, total, limit=max_unreadable)
    told = {"format": SHARDS_FORMAT, "kind": kind, "labels": list(source.labels), "splits": splits}
    put_json(out / INDEX, {**told, "channels": source.channels, "seed": seed})  # last: the pack is whole
    return PackReport(
        out=str(out),
        images={split: sum(one["rows"] for one in places) for split, places in splits.items()},
        shards=sum(map(len, splits.values())),
        written=written,
        unreadable=len(left_out),
    )


def _begin(out: DataPlace, settings: dict[str, Any]) -> None:
    """Refuse a folder with anything but an earlier pack of the same settings."""
    begun = json_of(out / SETTINGS_OF_PACK)
    if begun is not None:
        refuse_other_settings(out, begun, settings)
    elif _is_taken(out):
        raise UsageError(f"{out} is not empty, and no shards were packed there", hint="choose another --out")
    else:
        put_json(out / SETTINGS_OF_PACK, settings)


def _is_taken(out: DataPlace) -> bool:
    if isinstance(out, RemotePath):
        return bool(out.below()) or out.size() is not None
    if not out.exists():
        return False
    return not out.is_dir() or any(not one.name.startswith(".") for one in out.iterdir())


def read_index(name: str, data: bytes | None, rows: int) -> NDArray[np.int64]:
    """(N, 3) offsets, bytes and classes of a shard, from the content of its index.

    Raises:
        DataError: the index is missing or cut off.
    """
    if data is None or len(data) != 24 * rows:
        raise DataError(f"the index {name} of a shard is missing or cut off", hint="pack the data again")
    return np.frombuffer(data, np.int64).reshape(rows, 3)
