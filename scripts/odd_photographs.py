"""A folder of photographs with every oddity that real folders have, and a list of what was planted.

    python scripts/odd_photographs.py cifar10/ photos/ --count 500

Pictures of CIFAR-10 (a folder of its Parquet files) at odd sizes, in every format that Pillow writes, under
every kind of name that a file system takes, in class folders one of which is no UTF-8. Among them one corrupt
file, copies, pictures under two labels, an empty class, a link that loops, and what systems leave behind.
Prints one JSON object that names all of it, for a test of ``tesela data check`` or a training to end on.
Nothing is random but by the seed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from tesela.core.pathnames import path_text
from tesela.data.open import find_source

#: Endings and what Pillow calls the format.
FORMATS = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    **({".avif": "AVIF"} if features.check("avif") else {}),
}
#: Stems of file names, as bytes.
STEMS = [
    *(
        b"caf\xe9",
        b"\xff\xfe",
        b"#1",
        b"x#5",
        b'"quoted"',
        b"it's",
        b"two\nlines",
        b"carriage\rreturn",
        b"a\ttab",
    ),
    *(
        b" lead",
        b"trail ",
        b"a,b;c|d",
        b"-dash",
        b"back\\slash",
        b"lit\\xe9",
        b"100%25",
        b"n" * 240,
        b".hidden",
    ),
    *(b"path,label", b"<b>&amp;", b"$(HOME)", b"*?[x]", b"sep="),
    *(
        name.encode()
        for name in ("\u2028line", "e\u0301", "\u00e9", "\U0001f600", "\u4e2d\u6587", "\u0627\u0628")
    ),
]
#: Folders of the classes of CIFAR-10 where they are not called after them.
FOLDERS = {"ship": b"ship #1", "truck": b"cami\xf3n", "frog": b"it's a frog", "deer": "ci\u00e9rvo".encode()}
COPIES, CONFLICTS = 6, 3


def make_photographs(cifar: Path, root: Path, *, count: int = 500, seed: int = 0) -> dict[str, Any]:
    """Write the folder and return what was planted in it.

    Args:
        cifar: folder of CIFAR-10's Parquet files.
        root: the folder to write.
        count: number of images of all kinds, copies and the corrupt one among them.
        seed: of sizes and choices.

    Returns:
        paths below the root, as tesela writes them: ``labels``, ``formats``, ``corrupt``, ``copies`` and
        ``conflicts`` (pairs), ``empty``, ``ignored``, ``links``, ``names`` of odd files.
    """
    source, random = find_source(cifar), np.random.default_rng(seed)
    items, formats = source.splits["train"], list(FORMATS)
    folders = [FOLDERS.get(label, label.encode()) for label in source.labels]
    rows = {number: iter(np.flatnonzero(items.targets == number)) for number in range(len(folders))}
    names: list[bytes] = []
    kinds: Counter[str] = Counter()
    for number in range(count - COPIES - CONFLICTS - 1):
        label, turn = number % len(folders), number // len(folders)
        suffix = formats[(turn + label) % len(formats)]
        stem = STEMS[number] if number < len(STEMS) else b"%04d" % number
        name = folders[label] + b"/" + stem + (suffix.upper() if turn % 5 == 4 else suffix).encode()
        width, height = random.integers(17, 240, 2).tolist()
        picture = Image.fromarray(items.read(int(next(rows[label])), channels=3))
        stream = io.BytesIO()
        picture.resize((width, height), Image.Resampling.BICUBIC).save(stream, FORMATS[suffix])
        put(root, name, stream.getvalue())
        names.append(name)
        kinds[FORMATS[suffix]] += 1
    planted = plant(root, names, folders)
    return {
        "root": path_text(root),
        "images": count,
        "labels": sorted(path_text(os.fsdecode(folder)) for folder in folders),
        "formats": dict(kinds),
        "names": [path_text(os.fsdecode(name)) for name in names[: len(STEMS)]],
        **planted,
    }


def plant(root: Path, names: list[bytes], folders: list[bytes]) -> dict[str, Any]:
    """Put faults among the photographs and say where."""

    def text(name: bytes) -> str:
        return path_text(os.fsdecode(name))

    plain = names[len(STEMS) :]
    copies = [
        (name, name.rpartition(b"/")[0] + b"/copy of " + name.rpartition(b"/")[2]) for name in plain[:COPIES]
    ]
    conflicts = []
    for name in plain[COPIES : COPIES + CONFLICTS]:
        own = name.rpartition(b"/")[0]
        other = folders[(folders.index(own) + 1) % len(folders)]
        conflicts.append((name, other + b"/also " + name.rpartition(b"/")[2]))
    for first, second in (*copies, *conflicts):
        put(root, second, (root / os.fsdecode(first)).read_bytes())
    corrupt = folders[0] + b"/corrupt.jpg"
    put(root, corrupt, b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1" + b"\0" * 40)
    (root / "zebra").mkdir()
    ignored = [folders[1] + b"/notes.txt", b"read me.md"]
    for name in ignored:
        put(root, name, b"x")
    for name in (b"__MACOSX/" + folders[0] + b"/._0001.jpg", folders[0] + b"/._0001.jpg", b"Thumbs.db"):
        put(root, name, b"\0\5\x16\7")
    link = folders[2] + b"/loop"
    (root / os.fsdecode(link)).symlink_to(root.resolve(), target_is_directory=True)
    return {
        "corrupt": [text(corrupt)],
        "copies": [sorted(map(text, pair)) for pair in copies],
        "conflicts": [sorted(map(text, pair)) for pair in conflicts],
        "empty": ["zebra"],
        "ignored": sorted(map(text, ignored)),
        "links": [text(link)],
    }


def put(root: Path, name: bytes, content: bytes) -> None:
    """Write a file whose name may be any bytes."""
    path = root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def main() -> None:
    """Make the folder and print what is in it."""
    parser = argparse.ArgumentParser(description="A folder of odd photographs from CIFAR-10.")
    parser.add_argument("cifar", type=Path, help="folder of CIFAR-10's Parquet files")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(make_photographs(given.cifar, given.out, count=given.count, seed=given.seed)))


if __name__ == "__main__":
    main()
