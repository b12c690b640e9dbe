"""``tesela explain``: heat maps as PNG, a comparing figure, and the numbers as NPZ.

Odd: the model is loaded and the class looked up before any image is opened, so a wrong word costs seconds and
leaves no file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tesela.imaging.limits import DecodeLimits
    from tesela.imaging.spec import ImageSpec
    from tesela.models.bundle import BundleInfo

#: Images explained in one pass, and written at the same time.
BATCH, WRITERS = 16, 4
#: Options of methods that are not None where nothing is asked.
USUAL = {"head_fusion": "mean", "discard": 0.0, "residual": 0.5}


def explain(
    run: str,
    /,
    *images: str,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    target: Annotated[list[str] | None, Parameter(negative="")] = None,
    out: str = "explanations",
    contrast: str | None = None,
    region: str | None = None,
    head_fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    layer: int | None = None,
    head: int | None = None,
    samples: int | None = None,
    faithfulness: bool = True,
    random_maps: int = 24,
    seed: int = 0,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    colours: Literal["cividis", "inferno", "viridis"] = "inferno",
    json: bool = False,
) -> int:
    """Show which parts of an image spoke for a class; exit code 1 if an image could not be read.

    Writes for each image NAME.CLASS.png, the heat map over the original; NAME.figure.png, the image beside
    its maps, a column for each method and a row for each class; and NAME.npz, the numbers. Each map is
    measured: patches are taken away, and a map that does no better than random ones is called not faithful.
    What each method shows and does not show is in docs/explain.md.

    A program of tesela export --with-map explains without PyTorch: the class that it predicts, by the methods
    auto and rollout, unmeasured.

    Args:
        run: Run folder, bundle, or weights from elsewhere.
        images: Images, folders (all below them) and patterns.
        method: Method, or several with commas between; auto takes the best for the model. A wrong name lists
            them.
        target: Classes to explain, by label or index, with commas between or the option repeated. By default
            each image's predicted class.
        out: Folder for the pictures and numbers.
        contrast: A class to tell the targets from: what speaks for the target and not for this one.
        region: Of a segmenter, the pixels to explain, as LEFT,TOP,WIDTH,HEIGHT in each image; by default
            those that the class wins.
        head_fusion: How the heads of a layer become one; rollouts only, as the next two.
        discard: Share of the patches to clear in each row of attention, the smallest first; 0 clears none.
        residual: Share of attention in a layer's mixing; the rest is the skip connection.
        layer: Layer of the methods attention and gradcam, counted from 0; the last by default.
        head: Head of the method attention; all together by default.
        samples: Points, noisy copies or masks of the methods that average; their own number by default.
        faithfulness: Measure each map; without it explaining takes about a third of the time.
        random_maps: Random maps that each map is compared with; 20 or more.
        seed: Of the random maps and of the randomised weights.
        formats: The only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: Most pixels of an image; 250 million by default.
        colours: Colour table.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output
    from tesela.core.terminal import line_text
    from tesela.imaging.limits import local_limits

    output.use_json(json)
    rows, seconds = explain_files(
        run, list(images), methods=split(method or ["auto"]), target=target, out=Path(out), colours=colours,
        options={
            "contrast": contrast, "head_fusion": head_fusion, "discard": discard, "residual": residual,
            "layer": layer, "head": head, "samples": samples,
        },
        measured={"random_maps": random_maps, "seed": seed} if faithfulness else None,
        region=box_of(region),
        limits=local_limits(formats or (), max_pixels),
    )  # fmt: skip
    from tesela.core.errors import UsageError

    outside = [row["error"] for row in rows if row.get("error", {}).get("code") == "no_region"]
    if outside and len(outside) == len(rows):  # no image reaches to the region: it was given wrong
        raise UsageError(outside[0]["message"], hint=outside[0]["hint"])
    unreadable = sum("error" in row for row in rows)
    output.note_unreadable(
        f"unreadable: {line_text(row['image'])}: {row['error']['message']}" for row in rows if "error" in row
    )
    output.say(table(rows))
    for row in rows:
        if "figure" in row:
            output.say(f"figure: {line_text(row['figure'])}")
    output.say(f"{len(rows) - unreadable} explained in {seconds:.1f} s, {unreadable} unreadable, in {out}")
    maps = [
        one["faithfulness"]
        for row in rows
        for group in row.get("methods", [])
        for one in group["classes"]
        if "faithfulness" in one
    ]
    failed = sum(not one["faithful"] for one in maps)
    if failed:
        output.say(
            f"not faithful: {failed} of {len(maps)} maps do no better than random ones; do not draw "
            "conclusions from them"
        )
    counts = {"explained": len(rows) - unreadable, "unreadable": unreadable, "seconds": round(seconds, 4)}
    output.result({"run": run, "out": out, **counts, "images": rows}, json)
    return 1 if unreadable else 0


def explain_files(
    run: str,
    words: list[str],
    *,
    methods: list[str],
    target: list[str] | None,
    out: Path,
    colours: str,
    options: dict[str, Any],
    measured: dict[str, Any] | None,
    region: tuple[int, int, int, int] | None = None,
    limits: DecodeLimits,
) -> tuple[list[dict[str, Any]], float]:
    """Explain image files and write what was found.

    Returns:
        one row per image, with ``error`` where it cannot be read; and the seconds that it took once the model
        was loaded.

    Raises:
        UsageError: no such run, image, class or method.
    """
    from tesela.attribution.exported import check_program_options, explain_with_program, exported_program
    from tesela.attribution.methods.table import check_method
    from tesela.core.files import file_stem, unique_names
    from tesela.runs.folder import Run
    from tesela.runtime.predictor import Predictor
    from tesela.runtime.sources import find_images

    for method in methods:
        check_method(method)
    program = exported_program(run)
    if program is not None:
        given = {**options, "target": target, "region": region}
        check_program_options({name: value for name, value in given.items() if value != USUAL.get(name)})
        files = find_images(words, root=Run(run).data_root)
        predictor, begin = Predictor(program, limits=limits), time.perf_counter()
        explained = explain_with_program(predictor, files, methods=methods, out=out, colours=colours)
        return explained, time.perf_counter() - begin
    import torch

    from tesela.attribution.methods.rollout import RolloutOptions
    from tesela.attribution.quality.faithfulness import FaithfulnessOptions
    from tesela.attribution.quality.randomised import randomised
    from tesela.attribution.question import class_index
    from tesela.checkpoints.open import open_model
    from tesela.core.errors import UsageError

    RolloutOptions(**{name: options[name] for name in ("head_fusion", "discard", "residual")})
    figures = None if measured is None else FaithfulnessOptions(**measured)
    model, info = open_model(run, device="cuda" if torch.cuda.is_available() else "cpu")
    if not info.num_classes:
        raise UsageError(
            "this model was trained without labels and knows no classes to explain",
            hint="fine-tune it first: tesela train DATA --from RUN; or look into it: tesela inspect RUN",
        )
    if model.whole_grid:  # no patch can be taken from a segmenter, so its maps are not measured
        figures = None
    files = find_images(words, root=Run(run).data_root)
    classes = None
    if target is not None:
        classes = list(
            dict.fromkeys(
                class_index(word, info.num_classes, info.labels) for word in split(target, info.labels)
            )
        )
    if options["contrast"] is not None:
        options = {**options, "contrast": class_index(options["contrast"], info.num_classes, info.labels)}
    twin = randomised(model, seed=figures.seed) if figures is not None else None
    names, begin = unique_names(map(file_stem, files)), time.perf_counter()
    work = _Work(
        model=model,
        info=info,
        methods=methods,
        classes=classes,
        options=options,
        figures=figures,
        twin=twin,
        out=out,
        colours=colours,
        region=region,
        limits=limits,
    )
    rows: list[dict[str, Any]] = []
    for first in range(0, len(files), BATCH):
        part = slice(first, first + BATCH)
        rows += work.batch(files[part], names[part])
    return rows, time.perf_counter() - begin


class _Work:
    """What is done to every batch of files."""

    def __init__(self, **given: Any) -> None:
        self.model: nn.Module = given["model"]
        self.info: BundleInfo = given["info"]
        self.given = given

    def batch(self, files: Sequence[Path], names: Sequence[str]) -> list[dict[str, Any]]:
        """Read, explain, measure and write some files."""
        from tesela.core.errors import ImageError, UsageError
        from tesela.core.pathnames import path_text
        from tesela.imaging.decode import decode

        rows: list[dict[str, Any]] = []
        limits = self.given["limits"]
        read: list[tuple[dict[str, Any], str, NDArray[np.uint8]]] = []
        for file, name in zip(files, names, strict=True):
            row: dict[str, Any] = {"image": path_text(file)}
            rows.append(row)
            try:
                image = decode(file, channels=self.info.image.channels, limits=limits)
                if self.given["region"] is not None:
                    view_regions(self.given["region"], [(image.shape[0], image.shape[1])], self.info.image)
                read.append((row, name, image))
            except (ImageError, UsageError) as error:
                code = error.code if isinstance(error, ImageError) else "no_region"
                row["error"] = {"code": code, "message": error.message, "hint": error.hint}
        if read:
            self._explain(read)
        return rows

    def _explain(self, read: Sequence[tuple[dict[str, Any], str, NDArray[np.uint8]]]) -> None:
        import torch

        from tesela.attribution.draw.saving import Explained, save
        from tesela.attribution.explain import explain as explain_tensors
        from tesela.attribution.quality.faithfulness import measure_faithfulness
        from tesela.imaging.preprocess import preprocess

        given, options = self.given, self.given["options"]
        images = torch.from_numpy(preprocess([image for *_, image in read], self.info.image))
        if given["region"] is not None:
            sizes = [(image.shape[0], image.shape[1]) for *_, image in read]
            options = {**options, "region": view_regions(given["region"], sizes, self.info.image)}
        explained = []
        for method in given["methods"]:
            found = explain_tensors(self.model, images, target=given["classes"], method=method, **options)
            figures = given["figures"] and measure_faithfulness(
                self.model, images, found, options=given["figures"], how=options, twin=given["twin"]
            )
            explained.append(Explained(found=found, figures=figures))
        kept = {
            "labels": self.info.labels,
            "spec": self.info.image,
            "out": given["out"],
            "colours": given["colours"],
        }
        with ThreadPoolExecutor(WRITERS) as pool:  # most of it is compression, which holds no lock
            written = pool.map(
                lambda place: save(read[place][2], place, explained, name=read[place][1], **kept),
                range(len(read)),
            )
            for (row, *_), files in zip(read, written, strict=True):
                row.update(files)


def box_of(text: str | None) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of ``--region``.

    Raises:
        UsageError: it does not read so.
    """
    from tesela.core.errors import UsageError

    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or min(map(int, parts[2:])) < 1:
        raise UsageError(f"{text!r} is no region", hint="write --region LEFT,TOP,WIDTH,HEIGHT in pixels")
    left, top, width, height = map(int, parts)
    return left, top, width, height


def view_regions(
    box: tuple[int, int, int, int], sizes: Sequence[tuple[int, int]], spec: ImageSpec
) -> torch.Tensor:
    """The box as masks (B, h, w) of the model's view, for images of these sizes.

    Raises:
        UsageError: an image does not reach to the box.
    """
    import numpy as np
    import torch

    from tesela.core.errors import UsageError
    from tesela.imaging.mask import box_in_view

    masks = []
    for size in sizes:
        found = box_in_view(box, size, spec)
        if not found.any():
            raise UsageError(
                f"the region has no pixel in an image of {size[1]}x{size[0]} pixels",
                hint="give LEFT,TOP,WIDTH,HEIGHT inside of it",
            )
        masks.append(found)
    return torch.from_numpy(np.stack(masks))


def split(words: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """Words with commas between taken apart, each once.

    A word that is known as it stands keeps its commas.
    """
    parts = [part for word in words for part in ([word] if word in known else word.split(","))]
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def table(rows: list[dict[str, Any]]) -> Any:
    """One line per image, method and class for people."""
    from rich.table import Table
    from rich.text import Text

    from tesela.core.terminal import line_text

    groups = [(row, group) for row in rows for group in row.get("methods", [])]
    measured = any("faithfulness" in one for _, group in groups for one in group["classes"])
    shown = Table()
    for name in ("image", "method", "class"):
        shown.add_column(name, overflow="fold")
    for name in ("probability", "on prefix", *(("better than random",) if measured else ())):
        shown.add_column(name, justify="right")
    for row, group in groups:
        for one in group["classes"]:
            mass = one["prefix_mass"]
            numbers = [f"{one['probability']:.1%}", "" if mass is None else f"{mass:.1%}"]
            if measured:
                figures = one["faithfulness"]
                share = "–" if figures["percentile"] is None else f"{figures['percentile']:.0%}"
                numbers.append(share if figures["faithful"] else f"{share}, not faithful")
            shown.add_row(
                Text(line_text(row["image"].rpartition("/")[2])),
                Text(group["method"]),
                Text(one["label"]),
                *numbers,
            )
    return shown
