"""tesela: Vision Transformers from a folder of images to a trained and served model.

    import tesela as ts
    run = ts.train("photos/", model="vit_s16", epochs=20)
    model = ts.load(run.path)

Names are imported when first used, so ``import tesela`` costs milliseconds and needs no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from tesela.core.errors import MissingExtraError
from tesela.core.version import __version__

# before anything imports onnxruntime, which else keeps a device id and events in the user's cache, to send
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from tesela.api import (
        bench,
        compare,
        create_model,
        create_segmenter,
        evaluate,
        explain,
        export,
        few_shot,
        inspect,
        load,
        models,
        plan,
        predict,
        study,
        train,
    )

__all__ = [
    "__version__",
    "bench",
    "compare",
    "create_model",
    "create_segmenter",
    "evaluate",
    "explain",
    "export",
    "few_shot",
    "inspect",
    "load",
    "models",
    "plan",
    "predict",
    "study",
    "train",
]


#: Those that an exported program answers without torch.
_ANSWERS = frozenset({"bench", "compare", "evaluate", "explain", "inspect", "models", "predict"})


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Raises:
        MissingExtraError: it needs torch, which is not installed.
    """
    if name in __all__:
        try:
            return getattr(
                importlib.import_module(f"tesela.{'answers' if name in _ANSWERS else 'api'}"), name
            )
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "torch":
                raise
            raise MissingExtraError(f"tesela.{name}", "train") from error
    raise AttributeError(f"module 'tesela' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
