"""``tesela explain``: a heat map over each image as PNG, and its numbers as NPZ.

Odd: the model is loaded and the class looked up before any image is opened, so a wrong word costs seconds and leaves no file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from tesela.explain.explanation import Explanation
    from tesela.models.bundle import BundleInfo

#: Images explained in one pass.
BATCH = 16


def explain(
    run: str,
    *images: str,
    method: str = "auto",
    target: Annotated[list[str] | None, Parameter(negative="")] = None,
    out: str = "explanations",
    head_fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    colours: Literal["cividis", "inferno", "viridis"] = "inferno",
    json: bool = False,
) -> int:
    """Show which parts of an image spoke for a class.

    Writes NAME.CLASS.png, the heat map over the original image, and NAME.npz, the numbers, for each image. What each method
    shows and does not show is in docs/explain.md.

    Args:
        run: Run folder or bundle.
        images: Images, folders (all below them) and patterns.
        method: auto (gradient_rollout, or gradient_input without attention), gradient_rollout, rollout, rollout_literature, gradient_input.
        target: Class to explain, by label or index; can be repeated. By default the predicted class of each image.
        out: Folder for the pictures and numbers.
        head_fusion: How the heads of a layer become one; rollouts only, as the next two.
        discard: Share of the patches to clear in each row of attention, the smallest first; 0 clears none.
        residual: Share of attention in a layer's mixing; the rest is the skip connection.
        colours: Colour table.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output

    output.use_json(json)
    rows = explain_files(
        run, list(images), method=method, target=target, out=Path(out), colours=colours,
        options={"head_fusion": head_fusion, "discard": discard, "residual": residual},
    )  # fmt: skip
    unreadable = sum("error" in row for row in rows)
    for row in rows:
        if "error" in row:
            output.note(f"unreadable: {row['image']}: {row['error']['message']}")
    output.say(table(rows))
    output.say(f"{len(rows) - unreadable} explained, {unreadable} unreadable, in {out}")
    output.result({"run": run, "out": out, "explained": len(rows) - unreadable, "unreadable": unreadable, "images": rows}, json)
    return 1 if unreadable == len(rows) else 0


def explain_files(
    run: str, words: list[str], *, method: str, target: list[str] | None, out: Path, colours: str, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Explain image files and write what was found; one row per image, with ``error`` where it cannot be read.

    Raises:
        UsageError: no such run, image, class or method.
    """
    from tesela.explain.methods import check_method
    from tesela.models.bundle import locate_bundle
    from tesela.runtime.sources import find_images

    check_method(method)
    bundle = locate_bundle(Path(run))
    files = find_images(words)
    import torch

    from tesela.explain.rollout import RolloutOptions
    from tesela.explain.target import class_index
    from tesela.models.bundle import load_bundle

    RolloutOptions(**options)
    model, info = load_bundle(bundle, device="cuda" if torch.cuda.is_available() else "cpu")
    classes = None if target is None else [class_index(word, info.num_classes, info.labels) for word in target]
    names = unique_names(files)
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(files), BATCH):
        part = slice(begin, begin + BATCH)
        rows += _explain_batch(model, info, files[part], names[part], out, colours, {"target": classes, "method": method, **options})
    return rows


def _explain_batch(
    model: nn.Module, info: BundleInfo, files: list[Path], names: list[str], out: Path, colours: str, how: dict[str, Any]
) -> list[dict[str, Any]]:
    import torch

    from tesela.core.errors import ImageError
    from tesela.explain.explanation import explain as explain_tensors
    from tesela.imaging.decode import decode
    from tesela.imaging.preprocess import preprocess

    rows: list[dict[str, Any]] = []
    read: list[tuple[dict[str, Any], str, NDArray[np.uint8]]] = []
    for file, name in zip(files, names, strict=True):
        row: dict[str, Any] = {"image": str(file)}
        rows.append(row)
        try:
            read.append((row, name, decode(file, channels=info.image.channels)))
        except ImageError as error:
            row["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
    if read:
        batch = torch.from_numpy(preprocess([image for *_, image in read], info.image))
        found = explain_tensors(model, batch, **how)
        for index, (row, name, image) in enumerate(read):
            row.update(_write(found, index, image, info, out, name, colours))
    return rows


def _write(
    found: Explanation, index: int, image: NDArray[np.uint8], info: BundleInfo, out: Path, name: str, colours: str
) -> dict[str, Any]:
    """Write one image's pictures and numbers; its row of the result."""
    import numpy as np

    from tesela.core.files import write_atomic
    from tesela.explain.heatmap import overlay, to_original, write_arrays

    targets = found.targets[index].tolist()
    labels = [info.labels[one] for one in targets]
    size = (image.shape[0], image.shape[1])
    maps = [to_original(heat, size, info.image) for heat in found.map[index].cpu().numpy()]
    row: dict[str, Any] = {"method": found.method, "classes": [], "npz": str(out / f"{name}.npz")}
    per_class = {"prefix_mass": found.prefix_mass, "score": found.scores, "probability": found.probabilities}
    for place, (label, (heat, seen)) in enumerate(zip(labels, maps, strict=True)):
        picture = out / f"{name}.{safe(label, targets[place])}.png"
        write_atomic(picture, overlay(image, heat, seen=seen, colours=colours))
        values = {key: float(value[index, place]) for key, value in per_class.items()}
        peak = [int(i) for i in np.unravel_index(int(heat.argmax()), size)]
        row["classes"].append({"label": label, "index": targets[place], **values, "peak": peak, "png": str(picture)})
    arrays: dict[str, Any] = {key: value[index].cpu().numpy() for key, value in per_class.items()}
    arrays |= {"map": np.stack([heat for heat, _ in maps]), "tokens": found.tokens[index].cpu().numpy()}
    arrays |= {"targets": found.targets[index].cpu().numpy(), "labels": np.array(labels), "method": np.array(found.method)}
    write_arrays(out / f"{name}.npz", arrays)
    return row


def unique_names(files: list[Path]) -> list[str]:
    """A name for each file's results: its stem, numbered from the second file of the same stem on."""
    used: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 1
        while name.lower() in used:
            number += 1
            name = f"{file.stem}-{number}"
        used.add(name.lower())
        names.append(name)
    return names


def safe(label: str, index: int) -> str:
    """A label as part of a file name; its index where the label cannot be one as it is."""
    return label if re.fullmatch(r"[\w-][\w .-]{0,60}", label) else f"class{index}"


def table(rows: list[dict[str, Any]]) -> Any:
    """One line per image and class for people."""
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for name in ("image", "class", "picture"):
        shown.add_column(name, overflow="fold")
    for name in ("probability", "on prefix"):
        shown.add_column(name, justify="right")
    for row in rows:
        for one in row.get("classes", []):
            numbers = f"{one['probability']:.1%}", f"{one['prefix_mass']:.1%}"
            shown.add_row(Text(row["image"]), Text(one["label"]), Text(one["png"]), *numbers)
    return shown
