"""Open data by what is found at the path, and make sure of train, val and test.

Which kind it is, is decided by content: ``digits``, a manifest's suffix, Parquet files, IDX files, class folders. Splits
that are missing are cut out of train (see split.py). What no training could use is refused here, before any work.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tesela.core.errors import DataError, UsageError
from tesela.data.config import DataConfig
from tesela.data.source import SPLITS, Source
from tesela.data.split import complete, few_per_class, only_classes, subset

FORMS = "a folder of class folders, IDX or Parquet files, a CSV/JSONL manifest, or digits"


def open_source(text: str | Path, *, config: DataConfig | None = None) -> Source:
    """The source at ``text``, with train, val and test.

    Args:
        text: a path, or ``digits``.
        config: fractions, seed, classes and how many images; its ``source`` is not read.

    Raises:
        UsageError: nothing is there.
        DataError: what is there cannot be trained on.
    """
    config = config or DataConfig()
    source = find_source(text)
    if config.classes:
        source = only_classes(source, config.classes)
    refuse_unusable(source)
    source = complete(
        source, fractions={"val": config.val_fraction, "test": config.test_fraction}, seed=config.split_seed
    )
    if config.subset is not None:
        train = subset(source.splits["train"], config.subset, seed=config.split_seed)
        source = source.with_splits({**source.splits, "train": train}, cut=source.cut)
    if config.per_class is not None:
        train = few_per_class(source.splits["train"], config.per_class, seed=config.split_seed)
        source = source.with_splits({**source.splits, "train": train}, cut=source.cut)
    return source


def find_source(text: str | Path) -> Source:
    """The source as it is on disk, with the splits that it has."""
    from tesela.data.sources.digits import open_digits
    from tesela.data.sources.folder import open_folder
    from tesela.data.sources.idx import idx_pairs, open_idx
    from tesela.data.sources.manifest import open_manifest
    from tesela.data.sources.parquet import open_parquet, parquet_files

    if str(text) == "digits":
        return open_digits()
    path = Path(text).expanduser()
    if not path.exists():
        raise UsageError(f"there is no data at {text}", hint=f"give {FORMS}")
    if path.is_file():
        if path.suffix in (".csv", ".jsonl"):
            return open_manifest(path)
        if path.suffix == ".parquet":
            return open_parquet(path)
        raise UsageError(f"{text} is no data set", hint=f"give {FORMS}")
    if idx_pairs(path):
        return open_idx(path)
    if parquet_files(path):
        return open_parquet(path)
    return open_folder(path)


def refuse_unusable(source: Source) -> None:
    """Raise DataError where no classifier can be trained: no images, one class, a class that is only in val or test."""
    if "train" not in source.splits:
        found = ", ".join(sorted(source.splits)) or "nothing"
        raise DataError(f"{source.name} has no training images, only {found}", hint="add a train split")
    if not len(source.splits["train"]):
        raise DataError(
            f"{source.name} has no training images", hint="put images into the class folders of train"
        )
    if len(source.labels) < 2:
        raise DataError(
            f"{source.name} has one class only: {source.labels[0]}",
            hint="a classifier needs at least two class folders",
        )
    counts = class_counts(source)
    for number, label in enumerate(source.labels):
        places = [split for split in counts if split != "train" and counts[split][number]]
        if not counts["train"][number] and places:
            raise DataError(
                f"class {label!r} is in {places[0]} but not in train",
                hint=f"add training images of {label!r} or remove it from {places[0]}",
            )
    if np.count_nonzero(counts["train"]) < 2:
        raise DataError(
            f"{source.name} has training images of one class only",
            hint="a classifier needs at least two classes",
        )


def class_counts(source: Source) -> dict[str, list[int]]:
    """Images per class, by split."""
    order = [split for split in SPLITS if split in source.splits]
    return {
        split: np.bincount(source.splits[split].targets, minlength=len(source.labels)).tolist()
        for split in order
    }
