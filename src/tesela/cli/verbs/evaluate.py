"""``tesela evaluate``: the scores of a run or bundle on a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    run: str,
    data: str | None = None,
    /,
    *,
    split: str = "test",
    top: int | None = None,
    windows: Annotated[bool, Parameter(negative="")] = False,
    flip: Annotated[bool, Parameter(negative="")] = False,
    batch_size: Annotated[int, Parameter(name=["--batch-size", "--batch"])] = 256,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "compiled"] = "auto",
    mistakes: str | None = None,
    few_shot: str | None = None,
    draws: int | None = None,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Score a run or bundle on a split: for a classifier accuracy, top-k, calibration, classes, confusion.

    Images that cannot be read are named and left out, and the exit code is 1.

    A run's own test scores are kept in the run folder and its report is written again; others go to
    evaluations/ below it. With --few-shot the frozen model is scored in place of its head, on any classes.

    Args:
        run: Run folder, bundle, exported model, or a checkpoint of Hugging Face, timm or the JAX files.
        data: Another data set, whose labels are matched by name; by default the run's own.
        split: train, val or test.
        top: The k of a classifier's top-k accuracy; 5 by default.
        windows: Let a segmenter look at each image at its own size, through windows that overlap by half.
        flip: Average a segmenter's answer with that for the mirror image.
        batch_size: Images at a time; changes only the speed.
        precision: Number format of the matrix products; auto is what the run was trained with.
        device: Where to compute; auto takes a GPU where there is one.
        backend: What computes; auto takes torch, and the first engine installed for an exported model.
        mistakes: A .csv file for the images whose label a classifier contradicts, surest first: wrong labels
            are among them.
        few_shot: Shots, such as 1,5,10: accuracy of classifiers of the frozen features of so many training
            images of each class (ridge regression in closed form, nearest neighbours, linear probe), mean
            and deviation over draws.
        draws: How many times the shots are drawn; 5 by default.
        formats: The only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: Most pixels of an image; 250 million by default.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output
    from tesela.core.errors import MissingExtraError, UsageError
    from tesela.core.progress import stderr_console

    output.use_json(json)
    if batch_size < 1 or (top is not None and top < 1):
        raise UsageError("--top and --batch-size must be 1 or more", hint="5 and 256 are usual")
    if few_shot is not None:
        others = {"top": top is not None, "windows": windows, "flip": flip, "mistakes": mistakes is not None}
        others["backend"] = backend not in ("auto", "torch")
        refuse_beside_few_shot([name for name, given in others.items() if given])
        return _few_shot(
            run,
            data,
            few_shot,
            json=json,
            split=split,
            batch_size=batch_size,
            precision=precision,
            device=device,
            formats=formats,
            max_pixels=max_pixels,
            **({} if draws is None else {"draws": draws}),
        )
    if draws is not None:
        raise UsageError("--draws is of --few-shot", hint="add --few-shot 1,5,10, or leave --draws out")
    options: dict[str, Any] = {} if top is None else {"top": top}
    ways = {"windows": windows, "flip": flip}
    options |= {name: True for name, wanted in ways.items() if wanted}
    from tesela.core.packages import installed

    if not installed("torch"):
        if precision not in ("auto", "fp32") or device not in ("auto", "cpu") or mistakes is not None:
            raise MissingExtraError("evaluating with --precision, --device or --mistakes", "train")
        from tesela.evaluation.program import evaluate_program

        limits: dict[str, Any] = {"formats": formats, "max_pixels": max_pixels}
        console, size = stderr_console(), min(batch_size, 32)
        scores = evaluate_program(
            run, data, split=split, batch_size=size, backend=backend, console=console, **limits, **options
        )
        return show(scores, run, None, options=options, json=json)
    from tesela.evaluation.evaluate import evaluate_run
    from tesela.reports.report import write_report

    scores = evaluate_run(
        run,
        data=data,
        split=split,
        batch_size=batch_size,
        precision=precision,
        device=device,
        backend=backend,
        console=stderr_console(),
        mistakes=mistakes,
        formats=formats,
        max_pixels=max_pixels,
        **options,
    )
    report = write_report(run) if scores["folder"] == Path(run) else None
    if mistakes is not None:
        output.say(f"mistakes are listed in {mistakes}, the surest first")
    return show(scores, run, report, options=options, json=json)


def show(
    scores: dict[str, Any], run: str, report: Path | None, *, options: dict[str, Any], json: bool
) -> int:
    """The scores for people and programs; the exit code."""
    from tesela.cli import output
    from tesela.core.terminal import line_text

    say_scores(scores, **options)
    if scores["folder"] is not None:
        output.say(f"kept in {scores['folder']}" + (f", shown in {report}" if report else ""))
    output.note_unreadable(
        f"unreadable: {line_text(bad['name'])}: {bad['message']}" for bad in scores["unreadable"]
    )
    output.result({**scores, "run": run, "report": report}, json)
    return 1 if scores["unreadable"] else 0


def refuse_beside_few_shot(names: list[str]) -> None:
    """Refuse options that ask a model's head, which takes no part in few-shot accuracy.

    Raises:
        UsageError: it names the first.
    """
    from tesela.core.errors import UsageError

    if names:
        raise UsageError(
            f"--{names[0]} is about the model's own outputs, and --few-shot reads its features",
            hint=f"leave --{names[0]} out, or evaluate twice",
        )


def _few_shot(run: str, data: str | None, words: str, *, json: bool, **options: Any) -> int:
    """Few-shot accuracy, kept, shown and printed."""
    from tesela.cli import output
    from tesela.core.config import convert_value
    from tesela.core.progress import stderr_console
    from tesela.core.terminal import line_text
    from tesela.evaluation.few_shot import few_shot
    from tesela.reports.report import write_report

    shots: list[int] = convert_value(list[int], words, "few_shot")
    scores = few_shot(run, data=data, shots=shots, console=stderr_console(), **options)
    output.say(
        f"{scores['model']}, frozen, {scores['features']} features, on {scores['data']}, "
        f"{scores['split']} split, {scores['images']:,} images of {scores['classes']} classes"
    )
    output.say(few_shot_table(scores))
    report = write_report(run) if scores["folder"] == Path(run) else None
    if scores["folder"] is not None:
        output.say(f"kept in {scores['folder']}" + (f", shown in {report}" if report else ""))
    output.note_unreadable(
        f"unreadable: {line_text(bad['name'])}: {bad['message']}" for bad in scores["unreadable"]
    )
    output.result({**scores, "run": run, "report": report}, json)
    return 1 if scores["unreadable"] else 0


def few_shot_table(scores: Mapping[str, Any]) -> Table:
    """Mean and deviation of each classifier, a row for each number of shots."""
    from rich.table import Table

    from tesela.evaluation.shots import CLASSIFIERS, spread_text

    rows = scores["few_shot"]
    table = Table(
        title=f"Accuracy by images of each class, {scores['draws']} draws",
        title_justify="left",
    )
    table.add_column("shots", justify="right")
    for name, title in CLASSIFIERS.items():
        if name in rows[0]:
            table.add_column(title, justify="right")
    for row in rows:
        table.add_row(str(row["shots"]), *(spread_text(row[name]) for name in CLASSIFIERS if name in row))
    return table


def say_scores(scores: dict[str, Any], **options: Any) -> None:
    """The scores as tables for people."""
    from tesela.cli import output
    from tesela.core.terminal import name_value_grid
    from tesela.tasks.catalog import find_task

    output.say(
        f"{scores['model']} ({scores['parameters']:,} parameters) on {scores['data']}, "
        f"{scores['split']} split, {scores['images']:,} images"
    )
    for table in find_task(scores["task"]).tables(scores, **options):
        output.say(table)
    lines = {"speed": f"{scores['images_per_second']:,.0f} images/s"}
    if scores["unreadable"]:
        lines["unreadable"] = f"{len(scores['unreadable'])} images left out"
    output.say(name_value_grid(lines.items()))
