"""Classes of a source's masks: from the settings, a file beside the data, or the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tesela.core.errors import ConfigError, DataError
from tesela.data.config import DataConfig
from tesela.data.masks.classes_file import NAME, write_classes
from tesela.data.masks.coding import Colour, MaskCoding, coding_of
from tesela.data.masks.items import masked
from tesela.data.masks.known import usual_colours
from tesela.data.masks.survey import stored_values
from tesela.data.source import Source
from tesela.imaging.mask import IGNORE


def with_mask_classes(source: Source, config: DataConfig, root: Path) -> Source:
    """The source with its masks' classes as labels.

    Where nothing names them, a proposal is written beside the data.

    Args:
        source: each of whose images has a mask.
        config: names, ignored values, and whether 0 is ignored.
        root: the data's folder or file.

    Raises:
        DataError: no mask can be read.
        ConfigError: the settings contradict one another.
    """
    notes = source.notes
    if config.mask_names:
        coding = _named(config)
    elif source.masks is not None:
        coding = _without(source.masks, _dropped(config))
    else:
        proposal = _proposed(source)
        coding = _without(proposal, _dropped(config))
        written = write_classes(root, proposal) if root.is_dir() else None
        where = f"written to {written}" if written else f"nothing was written, as {root} takes no file"
        notes = (*notes, f"no {NAME} names the masks' values, so names were made up: {where}")
    return replace(source, masks=coding, labels=coding.names, notes=notes)


def _dropped(config: DataConfig) -> set[int]:
    return {*config.mask_ignore, *([0] if config.reduce_zero else [])}


def _named(config: DataConfig) -> MaskCoding:
    """Names in the order of the values that are not ignored."""
    dropped = _dropped(config)
    values = [value for value in range(256) if value not in dropped][: len(config.mask_names)]
    if len(values) < len(config.mask_names):
        raise ConfigError("mask_names has more names than there are values", hint="255 is the largest value")
    if IGNORE not in values:
        dropped.add(IGNORE)
    return MaskCoding(
        names=config.mask_names,
        values=tuple(values),
        colours=usual_colours(config.mask_names),
        ignored=tuple(sorted(dropped)),
    )


def _without(coding: MaskCoding, dropped: set[int]) -> MaskCoding:
    """A coding in which some values are ignored."""
    kept = [place for place, value in enumerate(coding.values) if value not in dropped]
    return replace(
        coding,
        names=tuple(coding.names[place] for place in kept),
        values=tuple(coding.values[place] for place in kept),
        colours=tuple(coding.colours[place] for place in kept),
        ignored=tuple(sorted({*coding.ignored, *dropped})),
    )


def _proposed(source: Source) -> MaskCoding:
    values: set[int] = set()
    kinds: set[bool] = set()
    for items in source.splits.values():
        found, coloured = stored_values(items)
        values |= found
        kinds.add(coloured)
    if not values:
        raise DataError(f"no mask of {source.name} can be read", hint="'tesela data check DATA' lists why")
    coloured = kinds == {True}
    if coloured:
        raise DataError(
            f"the masks of {source.name} have colours, and no file says which class each is",
            hint=f"write {NAME} beside the data: value,name with colours such as #804080 as values",
        )
    return coding_of(values, coloured=False, known_colours=_own_colours(source))


def _own_colours(source: Source) -> Sequence[Colour]:
    """The palette of the first mask."""
    items = source.splits["train"]
    base = masked(items)
    if base is None or not len(items):
        return ()
    return base.mask_colours(0)
