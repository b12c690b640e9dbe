"""Names by which folders, files and columns say train, val and test.

``training``, ``train_set``, ``TrainImages``, ``seg_train``, ``train2017``, ``VALID``, ``dev-data``,
``hold_out``: one word that names a split among words that say nothing ("set", "images", "data", a number),
in any case. Odd: "evaluation" names the test split, or validation where another name is the test's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text

_Name = TypeVar("_Name")
_SPLITS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
    "eval": ("eval", "evaluation", "evaluate"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_SILENT = (
    *("set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "part", "folder"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics"),
    *("sample", "samples", "example", "examples", "file", "files", "jpg", "jpeg", "png"),
    *("seg", "cls", "classification"),
)
_LONGEST_FIRST = "|".join(sorted(_SPLIT_OF, key=len, reverse=True))
_WORD = re.compile(rf"(?:{'|'.join(_SILENT)})?({_LONGEST_FIRST})(?:{'|'.join(_SILENT)})?\d*")
_NOTHING = re.compile(rf"(?:{'|'.join(_SILENT)})?\d*")
#: What writers of many files add: -00000-of-00002-1f3a, _0001, .1
_SHARD = re.compile(r"[-_.]\d+([-_]of[-_]\d+)?(-[0-9a-f]{16})?$")


def split_word(name: str) -> str | None:
    """train, val, test or eval where a name says one of these and nothing else; else None.

    Both of train and val in one name are train.
    """
    kinds: set[str] = set()
    for word in _words(name):
        said = _WORD.fullmatch(word)
        if said:
            kinds.add(_SPLIT_OF[said[1]])
        elif not _NOTHING.fullmatch(word):
            return None
    if kinds == {"train", "val"}:
        return "train"
    return kinds.pop() if len(kinds) == 1 else None


def says_nothing(name: str) -> bool:
    """Whether a name is a split's or made of words such as "images" and "data": no class is called so."""
    return split_word(name) is not None or all(map(_NOTHING.fullmatch, _words(name)))


def split_in(stem: str) -> str | None:
    """The split that a file's name says among other words, ``cifar10-train-00000-of-00001``; else None."""
    own = split_word(_SHARD.sub("", stem))
    if own is not None:
        return own
    words = _words(stem)
    said = [_SPLIT_OF[match[1]] for match in map(_WORD.fullmatch, words) if match]
    if said and _WORD.fullmatch(words[0]):
        return said[0]
    return said[0] if len(set(said)) == 1 else None


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """{name: train, val or test} of those names that say a split."""
    said = {name: word for name in names if (word := split_word(name)) is not None}
    return settled(said)


def refuse_doubles(splits: Mapping[str, str], place: Path) -> None:
    """Raise DataError where two names in ``place`` are those of one split."""
    for split in ("train", "val", "test"):
        names = [name for name, found in splits.items() if found == split]
        if len(names) > 1:
            raise DataError(
                f"{path_text(place)} has two folders for one split: {', '.join(map(path_text, names))}",
                hint="keep one of train, val and test each",
            )


def settled(said: Mapping[_Name, str]) -> dict[_Name, str]:
    """The same with every ``eval`` decided: the test split unless there is one."""
    evaluation = "val" if "test" in said.values() else "test"
    return {name: evaluation if word == "eval" else word for name, word in said.items()}


def _words(name: str) -> list[str]:
    joined = re.sub(r"(?i)\b(hold|held)[-_ ]?out", r"\1out", name.replace("_", " "))
    return [word for word in re.split(r"[\W_]+", joined.lower()) if word]
