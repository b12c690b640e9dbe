"""``tesela models``: what there is, and what one model looks like inside.

The list and the configuration need no torch; ``--shapes`` runs the model on the meta device, which has
shapes but no values.
"""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from cyclopts import App
from rich.table import Table

from tesela.cli.output import result, say, use_json
from tesela.core.config import convert_value
from tesela.core.errors import UnknownNameError
from tesela.core.format import byte_size
from tesela.models import catalog
from tesela.models.listing import list_models, model_facts
from tesela.models.pretrained import PRETRAINED

if TYPE_CHECKING:
    from tesela.models.config import ModelConfig

app = App(name="models", help="List the models, or show one with the shapes of its steps.")


@app.default
def models(pattern: str | None = None, /, *, pretrained: bool = False, json: bool = False) -> None:
    """List the models.

    Args:
        pattern: a family such as resnet, part of a name, or a glob such as "vit_s*".
        pretrained: list published weights that --from takes by a short name.
        json: print one JSON object as the last line.
    """
    use_json(json)
    if pretrained:
        _list_pretrained(pattern, json)
        return
    rows = list_models(pattern)
    say(_table(rows))
    result({"models": rows}, json)


@app.command
def show(
    name: str,
    /,
    *,
    shapes: bool = False,
    image_size: str | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    json: bool = False,
) -> None:
    """Show one model: its configuration, its size, and with --shapes every step's tensor.

    Args:
        name: a name of the list.
        shapes: print each step's tensor shape and parameters.
        image_size: side, or height and width as HxW; the model's own if not given.
        num_classes: classes of the head; 1000 for models of 224 px and 10 for small ones if not given.
        channels: channels of the images; the model's own if not given.
        json: print one JSON object as the last line.
    """
    use_json(json)
    size = None if image_size is None else convert_value(tuple[int, int], image_size, "image_size")
    classes = catalog.find_model(name).classes if num_classes is None else num_classes
    config = catalog.resolve(name, num_classes=classes, image_size=size, channels=channels)
    facts = model_facts(name, config, classes)
    say(f"{name}: {catalog.find_model(name).summary}")
    say(_pairs({key: value for key, value in facts.items() if key not in ("name", "config") and value != {}}))
    say("\nconfiguration")
    say(_pairs(facts["config"]))
    if shapes:
        facts["steps"] = _steps(config, classes, facts["decoder"])
    result(facts, json)


def _list_pretrained(pattern: str | None, json: bool) -> None:
    """Names, sizes, licences and origins of published weights."""
    found = [
        one for one in PRETRAINED if pattern is None or pattern in one.alias or fnmatch(one.alias, pattern)
    ]
    if not found:
        raise UnknownNameError("pre-trained model", str(pattern), [one.alias for one in PRETRAINED])
    table = Table(
        box=None,
        header_style="bold",
        caption="tesela train DATA --from NAME fetches it once; the hub's cache keeps it",
        caption_justify="left",
    )
    titles = (
        "name",
        "parameters",
        "download",
        "image",
        "GFLOPs",
        "licence",
        "gated",
        "trained by, on",
        "hub",
    )
    for title in titles:
        right = title in ("parameters", "download", "image", "GFLOPs")
        table.add_column(
            title, justify="right" if right else "left", no_wrap=title == "name", overflow="fold"
        )
    for one in found:
        numbers = f"{one.parameters:,}", byte_size(one.bytes), str(one.image_size), f"{one.gflops:.1f}"
        gated = "yes" if one.gated else "no"
        table.add_row(one.alias, *numbers, one.license, gated, one.origin, one.repository)
    say(table)
    result({"pretrained": [asdict(one) | {"source": one.source, "bytes": one.bytes} for one in found]}, json)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        box=None,
        header_style="bold",
        caption="GFLOPs of one image: two for each multiply-add",
        caption_justify="left",
    )
    table.add_column("name", no_wrap=True)
    table.add_column("family")
    for title in ("parameters", "GFLOPs", "image", "classes"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        size = "x".join(str(side) for side in row["image_size"])
        table.add_row(
            row["name"],
            row["family"],
            f"{row['parameters']:,}",
            f"{row['gflops']:,.3g}",
            size,
            str(row["num_classes"]),
        )
    return table


def _pairs(values: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False)
    for key, value in values.items():
        table.add_row(key, _text(key, value))
    return table


def _text(key: str, value: Any) -> str:
    """A size as 4x2, other lists as 3,4,6,3, whole numbers with separators."""
    if isinstance(value, list):
        return ("x" if key == "grid" or key.endswith("size") else ",").join(map(str, value))
    return f"{value:,}" if type(value) is int else str(value)


def _steps(config: ModelConfig, classes: int, decoder: dict[str, Any]) -> list[dict[str, Any]]:
    from tesela.models.shapes import step_shapes

    steps = step_shapes(config, num_classes=classes, decoder=decoder)
    table = Table(box=None, header_style="bold")
    table.add_column("step")
    table.add_column("shape")
    table.add_column("parameters", justify="right")
    for step in steps:
        table.add_row(
            step.name, " x ".join(map(str, step.shape)), f"{step.parameters:,}" if step.parameters else ""
        )
    table.add_section()
    table.add_row("total", "", f"{sum(step.parameters for step in steps):,}")
    say("\nsteps of one image")
    say(table)
    return [{"step": step.name, "shape": list(step.shape), "parameters": step.parameters} for step in steps]
