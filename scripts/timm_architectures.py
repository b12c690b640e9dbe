"""Write the table of timm's Vision Transformers: what a name there stands for.

    python scripts/timm_architectures.py --timm FOLDER

FOLDER holds timm and torchvision (`pip install --no-deps --target FOLDER timm torchvision`). A name of
timm is a class with arguments, which a checkpoint's config.json does not repeat. They are caught where
timm builds the model, so that no model is made: arguments as they are, layers by their names, norms with
their epsilon.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "src/tesela/checkpoints/timm/architectures.json"
#: Modules of timm whose models are Vision Transformers.
MODULES = (
    "beit",
    "deit",
    "eva",
    "naflexvit",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
#: Classes whose arguments matter; of the others the name of the class is enough to refuse them.
COMPUTED = ("Beit", "Eva", "SwinTransformer", "VisionTransformer", "VisionTransformerDistilled")
#: Arguments of the builder, not of the model.
_BUILDER = ("pretrained", "feature_cfg", "cache_dir", "kwargs_filter")


class _CaughtError(Exception):
    """A class and the arguments it was to be built with."""


def names_of(timm: Any) -> list[str]:
    """Names of all Vision Transformers of timm."""
    modules = timm.models._registry._model_to_module
    return [name for name in timm.list_models() if modules[name] in MODULES]


def _catch(cls: Any, *_: Any, **arguments: Any) -> None:
    raise _CaughtError(cls, arguments)


def _plain(value: Any) -> Any:
    """A value as JSON: layers by name, norms as name and epsilon."""
    made = value.func if isinstance(value, functools.partial) else value
    if inspect.isclass(made) or inspect.isfunction(made):
        layer: Any = value
        return [made.__name__, layer(8).eps] if "Norm" in made.__name__ else made.__name__
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def rows(timm: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class and arguments by name."""
    for module in MODULES:
        place: Any = importlib.import_module(f"timm.models.{module}")
        place.build_model_with_cfg = _catch
    found = {}
    for name in names_of(timm):
        try:
            timm.create_model(name)
        except _CaughtError as caught:
            cls, arguments = caught.args
            kept = sorted(arguments.items()) if cls.__name__ in COMPUTED else []
            found[name] = (
                cls.__name__,
                {key: _plain(value) for key, value in kept if not key.startswith(_BUILDER)},
            )
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timm", required=True, help="folder with timm and torchvision")
    sys.path.insert(0, parser.parse_args().timm)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from training_step import import_timm

    warnings.simplefilter("ignore")
    timm = import_timm()
    table = rows(timm)
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(table.items())]
    renamed = {
        old: new
        for old, new in timm.models._registry._deprecated_models.items()
        if new and new.split(".")[0] in table
    }
    older = [f"  {json.dumps(old)}: {json.dumps(new.split('.')[0])}" for old, new in sorted(renamed.items())]
    TABLE.write_text(
        f'{{"timm": "{timm.__version__}",\n"architectures": {{\n'
        + ",\n".join(lines)
        + '\n},\n"renamed": {\n'
        + ",\n".join(older)
        + "\n}}\n",
        encoding="utf-8",
    )
    print(f"{TABLE.relative_to(ROOT)}: {len(table)} architectures of timm {timm.__version__}")


if __name__ == "__main__":
    main()
