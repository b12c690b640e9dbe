"""Files of one image's explanations: overlays, numbers, and a figure that compares them.

``NAME.CLASS.png`` is the map over the image at the original's size, ``NAME.npz`` its numbers,
``NAME.figure.png`` all of them beside the image. With several methods the first two are
``NAME.METHOD.CLASS.png`` and ``NAME.METHOD.npz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.attribution.draw.figure import Panel, draw_comparison
from tesela.attribution.draw.heatmap import overlay, to_original, write_arrays
from tesela.attribution.draw.stem import label_stem
from tesela.attribution.explain import Explanation
from tesela.attribution.quality.faithfulness import Faithfulness
from tesela.core.files import write_atomic
from tesela.core.pathnames import path_text
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Result of one method for a batch.

    Attributes:
        found: maps and numbers.
        figures: how faithful they are; None where that was not measured.
    """

    found: Explanation
    figures: Faithfulness | None = None


def save(
    image: NDArray[np.uint8],
    index: int,
    explained: Sequence[Explained],
    *,
    labels: Sequence[str],
    spec: ImageSpec,
    out: Path,
    name: str,
    colours: str = "inferno",
) -> dict[str, Any]:
    """Write the files of image ``index`` of a batch.

    Args:
        image: the original (H, W, C).
        index: its place in the batch.
        explained: one entry for each method, all of the same classes.
        labels: names of all classes.
        spec: how the model saw the image.
        out: the folder.
        name: how the files' names begin.
        colours: a name of ``tesela.attribution.draw.heatmap.COLOURS``.

    Returns:
        paths and numbers: those of the first method, and those of all below ``methods``.

    Raises:
        StorageError: the file system refused.
    """
    size = (image.shape[0], image.shape[1])
    rows, columns = [], []
    for one in explained:
        stem = name if len(explained) == 1 else f"{name}.{one.found.method}"
        maps = [to_original(heat, size, spec) for heat in one.found.map[index].cpu().numpy()]
        rows.append(_numbers(image, index, one, maps, labels, out, stem, colours))
        columns.append(
            [
                Panel(heat=heat, note=_note(row), warning=_warns(row))
                for (heat, _), row in zip(maps, rows[-1]["classes"], strict=True)
            ]
        )
    classes = rows[0]["classes"]
    picture = draw_comparison(
        image,
        list(zip(*columns, strict=True)),
        rows=[f"{one['label']}, {one['probability']:.1%}" for one in classes],
        columns=[one.found.method for one in explained],
        seen=maps[0][1],
        colours=colours,
        title=name,
    )
    figure = out / f"{name}.figure.png"
    write_atomic(figure, picture)
    return {**rows[0], "figure": path_text(figure), "methods": rows}


def _numbers(
    image: NDArray[np.uint8],
    index: int,
    one: Explained,
    maps: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
    labels: Sequence[str],
    out: Path,
    stem: str,
    colours: str,
) -> dict[str, Any]:
    """Write one method's overlays and numbers; its row of the result."""
    found, figures = one.found, one.figures
    targets = found.targets[index].tolist()
    per_class = {"prefix_mass": found.prefix_mass, "score": found.scores, "probability": found.probabilities}
    row: dict[str, Any] = {"method": found.method, "classes": [], "npz": path_text(out / f"{stem}.npz")}
    for place, (target, (heat, seen)) in enumerate(zip(targets, maps, strict=True)):
        picture = out / f"{stem}.{label_stem(labels[target], target)}.png"
        write_atomic(picture, overlay(image, heat, seen=seen, colours=colours, side=0))
        entry: dict[str, Any] = {"label": labels[target], "index": target}
        entry |= {key: float(value[index, place]) for key, value in per_class.items()}
        entry["peak"] = [int(i) for i in np.unravel_index(int(heat.argmax()), heat.shape)]
        entry["png"] = path_text(picture)
        if figures is not None:
            entry["faithfulness"] = figures.figures(index, place)
        row["classes"].append(entry)
    arrays: dict[str, Any] = {key: value[index].cpu().numpy() for key, value in per_class.items()}
    arrays |= {"map": np.stack([heat for heat, _ in maps]), "tokens": found.tokens[index].cpu().numpy()}
    arrays |= {
        "targets": found.targets[index].cpu().numpy(),
        "labels": np.array([labels[target] for target in targets]),
    }
    arrays["method"] = np.array(found.method)
    if figures is not None:
        values = {
            key: getattr(figures, key)[index].cpu().numpy()
            for key in ("deletion", "insertion", "lead", "percentile", "faithful")
        }
        arrays |= {
            **values,
            "randomised_weights": figures.weights[index].cpu().numpy(),
            "patches_are": np.array(figures.how),
        }
    write_arrays(out / f"{stem}.npz", arrays)
    return row


def _warns(row: dict[str, Any]) -> bool:
    return "faithfulness" in row and not row["faithfulness"]["faithful"]


def _note(row: dict[str, Any]) -> str:
    """What stands below a map."""
    figures = row.get("faithfulness")
    if figures is None:
        return ""
    if figures["percentile"] is None:
        return "not faithful: too few patches to tell"
    beaten = f"beats {figures['percentile']:.0%} of random maps"
    return beaten if figures["faithful"] else f"not faithful: {beaten}"
