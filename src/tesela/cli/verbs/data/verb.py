"""``tesela data check | show | split | pack``: a data set before anything is trained on it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from tesela.data.check import Report
    from tesela.data.masks.check import MaskReport

app = App(name="data", help="Check, show, split and pack a data set.", help_format="plaintext")
_LISTED = 20


@app.command
def check(
    data: str,
    /,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    max_unreadable: float = 0.01,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Count, measure and verify every image; exit code 1 if training would refuse the data.

    Args:
        data: a folder of class folders or of images and masks, IDX or Parquet files, a CSV/JSONL manifest,
            or digits.
        val_fraction: share cut off for validation where the source has no such split.
        test_fraction: share cut off for testing where the source has no such split.
        split_seed: another number cuts the splits differently.
        max_unreadable: largest share of unreadable training images.
        formats: the only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: most pixels of an image; 250 million by default.
        json: print the report as one JSON object.
    """
    from tesela.cli import output
    from tesela.core.errors import DataError
    from tesela.data.check import check as check_source
    from tesela.data.config import DataConfig
    from tesela.data.masks.check import listed_targets
    from tesela.data.open import open_source, usual_targets
    from tesela.data.scan import refuse_too_many

    output.use_json(json)
    config = DataConfig(
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        **decoding(formats, max_pixels),
    )
    source = open_source(data, config=config, targets=listed_targets)
    report = check_source(source)
    if not json:  # it holds all of it
        _say(report)
    refusal = None
    try:
        refuse_too_many(report.unreadable["train"], len(source.splits["train"]), limit=max_unreadable)
        usual_targets(source).check(source)
    except DataError as error:
        refusal = error
    output.result({**report.mapping(), "accepted": refusal is None}, json)
    if refusal is not None:
        raise refusal
    return 0


@app.command
def show(
    data: str,
    /,
    *,
    out: Path = Path("grid.png"),
    split: str = "train",
    count: int = 40,
    columns: int = 10,
    image_size: int | None = None,
    augment: str | None = None,
    seed: int = 0,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Draw a grid of samples, all classes taking turns; masks lie over their images.

    Args:
        data: as for check.
        out: the PNG file to write.
        split: train, val or test.
        count: number of samples.
        columns: samples per row.
        image_size: side in pixels; by default the data's own median size.
        augment: show them as training would, with these settings, such as
            "hflip=0.5,crop_padding=4,randaugment=2".
        seed: of choice and augmentation.
        formats: the only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: most pixels of an image; 250 million by default.
        json: print what was written as one JSON object.
    """
    import numpy as np

    from tesela.cli import output
    from tesela.core.config import build
    from tesela.core.errors import UnknownNameError
    from tesela.core.files import write_atomic
    from tesela.data.config import AugmentConfig, DataConfig
    from tesela.data.masks.targets import MaskTargets
    from tesela.data.open import open_source
    from tesela.data.show import grid
    from tesela.data.statistics import pixel_statistics
    from tesela.imaging.png import encode_png
    from tesela.imaging.spec import ImageSpec

    output.use_json(json)
    source = open_source(data, config=DataConfig(**decoding(formats, max_pixels)))
    if split not in source.splits:
        raise UnknownNameError("split", split, source.splits)
    items = source.splits[split]
    found = pixel_statistics(items, channels=source.channels, sample=200)
    height, width = (image_size, image_size) if image_size else found.size
    spec = ImageSpec(height=height, width=width, channels=source.channels, mean=found.mean, std=found.std)
    config = build(AugmentConfig, settings(augment)) if augment is not None else None
    masks = None if source.masks is None else MaskTargets(source.masks)
    picture = grid(
        items,
        source.labels,
        spec,
        count=count,
        columns=columns,
        augment=config,
        seed=seed,
        masks=masks,
    )
    write_atomic(out, encode_png(np.asarray(picture)))
    output.say(f"{min(count, len(items))} of {len(items)} {split} images of {source.name}: {out}")
    output.result({"out": str(out), "images": min(count, len(items)), "size": [height, width]}, json)
    return 0


@app.command
def split(
    data: str,
    /,
    *,
    out: Path,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    json: bool = False,
) -> int:
    """Save which image belongs to train, val and test as a manifest, which every verb takes as DATA.

    Args:
        data: as for check.
        out: the .csv or .jsonl file to write.
        val_fraction: share cut off for validation where the source has no such split.
        test_fraction: share cut off for testing where the source has no such split.
        split_seed: another number cuts the splits differently.
        json: print the counts as one JSON object.
    """
    from tesela.cli import output
    from tesela.data.config import DataConfig
    from tesela.data.open import open_source
    from tesela.data.sources.tables.writing import names_root, write_manifest

    output.use_json(json)
    source = open_source(
        data, config=DataConfig(val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed)
    )
    write_manifest(source, out, root=names_root(source))
    counts = {name: len(items) for name, items in source.splits.items()}
    output.say(f"{out}: " + ", ".join(f"{name} {number}" for name, number in counts.items()))
    output.result({"out": str(out), "splits": counts, "cut": list(source.cut)}, json)
    return 0


@app.command
def pack(
    data: str,
    /,
    *,
    out: str,
    to: Literal["tar", "parquet"] = "tar",
    rows: int = 1000,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    max_unreadable: float = 0.01,
    json: bool = False,
) -> int:
    """Write a data set as shards, which every verb takes as DATA; the same command takes up an early end.

    Args:
        data: as for check, without masks.
        out: the folder to write, or an address such as s3://bucket/shards.
        to: tar archives in WebDataset's layout with an index, or Parquet files.
        rows: images of a shard.
        seed: of the order in which images go into shards.
        val_fraction: share cut off for validation where the source has no such split.
        test_fraction: share cut off for testing where the source has no such split.
        split_seed: another number cuts the splits differently.
        max_unreadable: largest share of images that are left out because they cannot be read.
        json: print the counts as one JSON object.
    """
    from dataclasses import asdict

    from tesela.cli import output
    from tesela.core.progress import progress_bar, stderr_console
    from tesela.data.config import DataConfig
    from tesela.data.open import open_source
    from tesela.data.packing.pack import pack as pack_source
    from tesela.data.storage.place import place_of
    from tesela.runs.folder import Run

    output.use_json(json)
    place = place_of(out)
    source = open_source(
        data, config=DataConfig(val_fraction=val_fraction, test_fraction=test_fraction, split_seed=split_seed)
    )
    total = sum(len(items) for items in source.splits.values())
    # at an address two of the same settings write the same bytes
    lock = Run(place).locked("pack") if isinstance(place, Path) else contextlib.nullcontext()
    with lock, progress_bar(stderr_console(), "pack", total) as bar:
        passed = 0

        def tell(done: int) -> None:
            nonlocal passed
            bar.advance(done - passed)
            passed = done

        found = pack_source(
            source, place, rows=rows, kind=to, seed=seed, max_unreadable=max_unreadable, tell=tell
        )
    counts = ", ".join(f"{name} {number}" for name, number in found.images.items())
    output.say(f"{out}: {found.shards} shards, {counts}")
    if found.unreadable:
        output.say(f"{found.unreadable} images cannot be read and were left out: {place / 'unreadable.json'}")
    output.result(asdict(found), json)
    return 0


def decoding(formats: list[str] | None, max_pixels: int | None) -> dict[str, Any]:
    """What --formats and --max-pixels say, as fields of DataConfig."""
    given = {"formats": None if formats is None else tuple(formats), "max_pixels": max_pixels}
    return {name: value for name, value in given.items() if value is not None}


def settings(text: str) -> dict[str, str]:
    """``"hflip=0.5,randaugment=2"`` as a mapping.

    A comma inside a value is written as x: ``crop_scale=0.5x1``.

    Raises:
        ConfigError: a part has no ``=``.
    """
    from tesela.core.errors import ConfigError

    parts = [part.partition("=") for part in text.split(",") if part]
    for name, equals, _ in parts:
        if not equals:
            raise ConfigError(f"{name!r} has no value", hint=f"write {name}=VALUE")
    return {name.strip(): value.strip() for name, _, value in parts}


def _say(report: Report) -> None:
    """The report for people."""
    from rich.table import Table

    from tesela.cli.output import say
    from tesela.core.terminal import line_text
    from tesela.data.scan import causes

    say(f"{report.name} ({report.kind}): {report.images} images, {len(report.labels)} classes")
    if report.masks is not None:
        _say_masks(report, report.masks)
    else:
        table = Table("class", *report.counts)
        for number, label in list(enumerate(report.labels))[:_LISTED]:
            table.add_row(label, *(str(counts[number]) for counts in report.counts.values()))
        if len(report.labels) > _LISTED:
            table.add_row(f"... {len(report.labels) - _LISTED} more", *("" for _ in report.counts))
        table.add_row("all", *(str(sum(counts)) for counts in report.counts.values()))
        say(table)
    sizes = report.sizes.most_common(5)
    say(
        "sizes (height x width): "
        + ", ".join(f"{height}x{width}: {count}" for (height, width), count in sizes)
        + _more(len(report.sizes), 5)
    )
    say("layouts: " + ", ".join(f"{mode}: {count}" for mode, count in report.modes.most_common()))
    for split, found in report.unreadable.items():
        if found:
            say(f"unreadable in {split}: {causes(found)}")
        for bad in found:
            say(f"unreadable in {split}: {line_text(bad.name)} ({bad.code}: {bad.message}; {bad.hint})")
    for twin in report.conflicts[:_LISTED]:
        say(f"same pixels as {twin.labels[0]} and {twin.labels[1]}: {twin.first}, {twin.second}")
    for twin in report.leaks[:_LISTED]:
        say(f"same pixels in {twin.splits[0]} and {twin.splits[1]}: {twin.first}, {twin.second}")
    for note in report.notes:
        say(f"note: {note}")


def _say_masks(report: Report, masks: dict[str, MaskReport]) -> None:
    """Shares of pixels and numbers of images of each class, and what is wrong with which mask."""
    from rich.table import Table

    from tesela.cli.output import say

    table = Table("class", *(f"{split}: pixels, images" for split in masks))
    for number, label in list(enumerate(report.labels))[:_LISTED]:
        table.add_row(
            label, *(f"{one.share(number):.2%}, {int(one.images[number])}" for one in masks.values())
        )
    if len(report.labels) > _LISTED:
        table.add_row(f"... {len(report.labels) - _LISTED} more", *("" for _ in masks))
    table.add_row("ignored", *(f"{one.ignored:.2%}" for one in masks.values()))
    say(table)
    for split, one in masks.items():
        for fault in one.faults:
            say(f"mask in {split}: {fault.message}")
        for name in one.empty[:_LISTED]:
            say(f"nothing but ignored pixels in {split}: {name}")


def _more(total: int, shown: int) -> str:
    return f", {total - shown} more" if total > shown else ""
