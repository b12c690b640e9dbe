"""``tesela demo``: train, evaluate, predict, explain and report on embedded real images.

The images are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; the recipe is ``digits``. A few test
images are written out as PNG files named after their class, so that ``tesela predict`` and ``tesela explain``
have something to be tried on.

Odd: a demo that was interrupted, or is complete, in the same ``--out`` is taken up again rather than refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesela.tasks.result import Result

EXAMPLES = 5


def demo(*, out: str | None = None, epochs: int | None = None, seed: int = 0, json: bool = False) -> None:
    """Train, evaluate, predict, explain and report on handwritten digits, in about a minute on 2 cores.

    Args:
        out: Folder for the run, example images and report; by default a new one below runs/.
        epochs: Passes over the training images; by default the recipe's.
        seed: Everything random is a function of it.
        json: Print one JSON object as the last line.
    """
    from tesela import recipes
    from tesela.api import train_config
    from tesela.cli import output
    from tesela.core.progress import stderr_console
    from tesela.runs.folder import Run
    from tesela.training.config import layered
    from tesela.training.run import free_folder

    output.use_json(json)
    settings = {"data": {"source": "digits"}, "recipe": "digits", "seed": seed}
    config = layered(recipes.find_recipe("digits"), settings, {} if epochs is None else {"epochs": epochs})
    folder = Path(out) if out else free_folder(config)
    trained = train_config(
        replace(config, out=str(folder)), resume=Run(folder).exists(), console=stderr_console()
    )
    examples = write_examples(folder / "examples")
    predictions = predict(folder, examples)
    heat = explain(folder, examples[0])
    show(folder, trained.mapping(), predictions, heat)
    found = [prediction.to_mapping() for prediction in predictions]
    output.result(
        {**trained.mapping(), "report": Run(folder).report, "predictions": found, "explanation": heat}, json
    )


def write_examples(folder: Path, *, count: int = EXAMPLES) -> list[Path]:
    """Test images of different digits as PNG files, ``digit-7.png`` being a seven."""
    from tesela.core.files import write_atomic
    from tesela.data.open import open_source
    from tesela.imaging.png import encode_png

    source = open_source("digits")
    items = source.splits["test"]
    first = {source.labels[int(target)]: index for index, target in reversed(list(enumerate(items.targets)))}
    written = []
    for label in sorted(first)[:count]:
        path = folder / f"digit-{label}.png"
        write_atomic(path, encode_png(items.read(first[label])))
        written.append(path)
    return written


def predict(folder: Path, examples: Sequence[Path]) -> list[Result]:
    """What the run says about image files."""
    from tesela.runtime.predictor import Predictor

    return Predictor(folder).predict(examples, top=3)


def explain(folder: Path, image: Path) -> Path:
    """What spoke for the predicted class of one image file, as a picture in the run folder."""
    from tesela.attribution.draw.report import explain_for_report
    from tesela.core.files import write_atomic
    from tesela.imaging.decode import decode
    from tesela.models.bundle import load_bundle, locate_bundle

    model, info = load_bundle(locate_bundle(folder))
    (picture,) = explain_for_report(model, [decode(image, channels=info.image.channels)], spec=info.image)
    path = folder / "examples" / f"{image.stem}-explained.png"
    write_atomic(path, picture)
    return path


def show(folder: Path, trained: dict[str, Any], predictions: Sequence[Result], heat: Path) -> None:
    """What happened and where everything lies, for people."""
    from tesela.cli import output
    from tesela.core.terminal import name_value_grid

    said = [f"{Path(result.source).name} is {result.text()}" for result in predictions]
    rows = [
        ("accuracy", f"{trained['accuracy'] * 100:.2f} % on held-out digits"),
        ("trained", f"{trained['parameters']:,} parameters in {trained['seconds']:.0f} s"),
        *(("predicted" if not index else "", text) for index, text in enumerate(said)),
        ("explained", str(heat)),
        ("report", str(folder / "report.html")),
        ("next", f"tesela predict {folder} {folder / 'examples'}"),
        ("", f"tesela serve {folder}"),
    ]
    output.say(name_value_grid(rows))
