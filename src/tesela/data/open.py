"""Open data by what is found at the path, and make sure of train, val and test.

The kind is decided by content: ``digits``, a manifest's suffix, Parquet files, IDX files, class folders;
other distributions add kinds under the entry point group ``tesela.datasets``. Splits that are missing are cut
out of train (see split.py). Data that no training could use is refused here, before any work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tesela.core.address import is_address, local_text, refuse_credentials
from tesela.core.errors import ConfigError, DataError, UsageError
from tesela.core.pathnames import path_text, text_path
from tesela.core.registry import entries, register
from tesela.data.config import DataConfig
from tesela.data.masks.items import has_masks
from tesela.data.masks.resolve import with_mask_classes
from tesela.data.masks.targets import MaskTargets
from tesela.data.source import Source, set_limits
from tesela.data.sources.images import names_no_classes, open_images, with_unlabelled
from tesela.data.split import complete, few_per_class, only_classes, subset
from tesela.data.targets import LabelTargets, Targets

# In the order in which they are asked; each takes a path or word and gives a Source, or None if it is not its
# own.
for _kind in ("digits", "hub", "manifest", "idx", "shards", "parquet", "coco", "masks", "metadata", "folder"):
    register("dataset", _kind, target=f"tesela.data.sources.{_kind}:find_{_kind}")

#: Kinds that are read at addresses too.
_AT_ADDRESSES = ("shards", "parquet")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
FORMS = (
    "a folder of class folders or of images and masks, IDX or Parquet files, shards, a CSV/JSONL manifest, "
    "or digits"
)


def open_source(
    text: str | Path,
    *,
    config: DataConfig | None = None,
    targets: Callable[[Source], Targets] | None = None,
    needs_labels: bool = True,
) -> Source:
    """The source at ``text``, with train, val and test.

    Args:
        text: a path, or ``digits``.
        config: fractions, seed, classes and how many images; its ``source`` is not read.
        targets: makes the targets that decide what can be trained on and how splits are stratified; by
            default the stored classes.
        needs_labels: whether images without labels are refused; where not, all images below a folder are
            taken, and masks are not looked at.

    Raises:
        UsageError: nothing is there.
        DataError: what is there cannot be trained on.
    """
    config = config or DataConfig()
    source = find_source(text) if needs_labels else find_unlabelled(text)
    set_limits(source, config.limits)
    if config.channels != "auto":
        source = replace(source, channels=config.channels)
    if needs_labels and has_masks(source):
        source = with_mask_classes(source, config, Path(_as_it_is_there(text)).expanduser())
    if config.classes and source.masks is not None:
        raise ConfigError(
            "data.classes chooses among classes of whole images, and these are masks",
            hint="have other values ignored: yes under 'ignored' in classes.csv",
        )
    if config.classes:
        source = only_classes(source, config.classes)
    refuse_without_training_images(source)
    wanted = targets(source) if targets is not None else usual_targets(source)
    wanted.check(source)
    fractions = {"val": config.val_fraction, "test": config.test_fraction}
    source = complete(source, wanted, fractions=fractions, seed=config.split_seed)
    train = source.splits["train"]
    if config.subset is not None:
        train = subset(train, wanted.strata(train), config.subset, seed=config.split_seed)
    if config.per_class is not None:
        train = few_per_class(train, wanted.strata(train), config.per_class, seed=config.split_seed)
    return source.with_splits({**source.splits, "train": train}, cut=source.cut)


def usual_targets(source: Source) -> Targets:
    """Masks where each image has one, else the stored classes."""
    return LabelTargets(source.labels) if source.masks is None else MaskTargets(source.masks)


def find_source(text: str | Path) -> Source:
    """The source as it is on disk, with the splits that it has; the first kind that knows ``text`` opens it.

    Raises:
        UsageError: there is nothing, or no kind knows it.
        DataError: it is damaged.
    """
    text = _as_it_is_there(text)
    if is_address(text):
        return _find_at_address(str(text))
    # takes any folder: last
    for entry in sorted(entries("dataset"), key=lambda entry: entry.name == "folder"):
        source: Source | None = entry.load()(text)
        if source is not None:
            return source
    if not Path(text).expanduser().exists():
        raise UsageError(f"there is no data at {path_text(text)}", hint=f"give {FORMS}")
    archive = Path(text).suffix.lower() in _ARCHIVES
    raise UsageError(
        f"{path_text(text)} is no data set",
        hint="unpack it and give the folder" if archive else f"give {FORMS}",
    )


def _find_at_address(text: str) -> Source:
    refuse_credentials(text)
    for entry in entries("dataset"):
        source: Source | None = entry.load()(text) if entry.name in _AT_ADDRESSES else None
        if source is not None:
            return source
    raise UsageError(
        f"there are no shards at {text}",
        hint="write them there: tesela data pack DATA --out ADDRESS; or give the address of Parquet files",
    )


def find_unlabelled(text: str | Path) -> Source:
    """The source as ``find_source`` has it; a folder that is no data set by its labels is one of images.

    Raises:
        UsageError: there is nothing, or no kind knows it.
        DataError: it is damaged, or holds no images.
    """
    if is_address(text):
        return find_source(text)
    folder = Path(_as_it_is_there(text)).expanduser()
    try:
        source = find_source(text)
        refused = None
    except DataError as error:
        source, refused = None, error
    if source is None or names_no_classes(source):
        images = open_images(folder) if folder.is_dir() else None
        if images is not None:
            return images
        if source is None:
            raise refused or DataError(f"{path_text(text)} holds no images", hint=f"give {FORMS}")
    return with_unlabelled(source, folder) if source.kind == "folder" else source


def _as_it_is_there(text: str | Path) -> str | Path:
    """The path with escaped bytes read back, where it is there only so; an address as it is."""
    text = local_text(text) if isinstance(text, str) else text
    if is_address(text):
        return text
    read = text_path(str(text)).expanduser()
    return read if not Path(text).expanduser().exists() and read.exists() else text


def refuse_without_training_images(source: Source) -> None:
    """Raise DataError where a source has no train split, or an empty one."""
    if "train" not in source.splits:
        found = ", ".join(sorted(source.splits)) or "nothing"
        raise DataError(f"{source.name} has no training images, only {found}", hint="add a train split")
    if not len(source.splits["train"]):
        raise DataError(
            f"{source.name} has no training images", hint="put images into the class folders of train"
        )
