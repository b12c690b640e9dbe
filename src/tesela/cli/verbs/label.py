"""``tesela label suggest``: which images to label first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

app = App(name="label", help="Which images to label first.", help_format="plaintext")
_LISTED = 10


@app.command
def suggest(
    data: str,
    /,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    labels: Path | None = None,
    count: int = 20,
    out: Path | None = None,
    batch_size: int = 256,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    json: bool = False,
) -> int:
    """Suggest images to label, in the order in which to label them, and write a manifest to fill in.

    Images come first that many others are alike to, and that are unlike those that are labelled or suggested
    already. Once two classes have labels, images that a classifier of them is uncertain of count more.

    Fill in the column label of the manifest and give it back with --labels for more; tesela train takes it.

    Args:
        data: a folder of images, or any data set; its own labels are not looked at.
        from_: run, bundle or checkpoint whose features tell images apart; without one they are compared as
            they look, by copies of 8 x 8 pixels.
        labels: the manifest with labels filled in; rows without one may be suggested again.
        count: how many to suggest.
        out: the .csv file to write; that of --labels by default, else labels.csv.
        batch_size: images at a time; changes only the speed.
        device: where to compute; auto takes a GPU where there is one.
        json: print one JSON object as the last line.
    """
    import dataclasses

    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.core.progress import stderr_console
    from tesela.core.terminal import line_text
    from tesela.evaluation.suggest import suggest_labels

    output.use_json(json)
    if batch_size < 1:
        raise UsageError(f"--batch-size must be 1 or more, not {batch_size}", hint="256 is usual")
    found = suggest_labels(
        data,
        out=out or labels or Path("labels.csv"),
        count=count,
        source=from_,
        labels=labels,
        batch_size=batch_size,
        device=device,
        console=stderr_console(),
    )
    if from_ is None:
        output.note("no model was named: images are compared by copies of 8 x 8 pixels")
    kind = "coverage and uncertainty" if found.uncertain else "coverage"
    output.say(f"{len(found.suggested)} images to label, by {kind}, beside {found.labelled} with labels:")
    for name in found.suggested[:_LISTED]:
        output.say(f"  {line_text(name)}")
    if len(found.suggested) > _LISTED:
        output.say(f"  and {len(found.suggested) - _LISTED} more")
    output.say(f"fill in the column label of {found.out}")
    output.note_unreadable(
        f"unreadable: {line_text(bad['name'])}: {bad['message']}" for bad in found.unreadable
    )
    output.result(dataclasses.asdict(found), json)
    return 1 if found.unreadable else 0
