"""Pickles of training programs: tensors, plain values, and stand-ins of inert objects.

torch's ``weights_only`` refuses every type that it does not know before anything of it runs. Types that only
hold values (arguments, paths, numbers, settings) are let through under their names, but what is made of them
is a stand-in of this module, so that not even their own code runs and their packages need not be installed.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from tesela.core.errors import WeightsError


class Inert:
    """Stand-in of an object: its attributes, where it had a dictionary of them."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An empty one, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Forget the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Keep a dictionary of attributes; forget any other state."""
        if isinstance(state, dict):
            self.__dict__.update(state)


class InertMapping:
    """Makes an ordered dictionary in the place of another program's mapping."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # the stand-in itself
        """An empty one, whatever the arguments; torch fills this kind alone."""
        return OrderedDict()


_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "builtins.list builtins.dict builtins.int builtins.float builtins.str builtins.bool builtins.tuple",
    "builtins.frozenset builtins.slice builtins.range builtins.object",
    "datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone",
    "decimal.Decimal fractions.Fraction uuid.UUID typing.Any",
    *(
        f"{module}.{kind}Path {module}.Pure{kind}Path"
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "Windows", "")
    ),
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
    "numpy.dtype numpy.ndarray",
    *(f"numpy.dtypes.{name}" for name in dir(np.dtypes) if name.endswith("DType")),
    *(f"numpy.{kind.__name__}" for kind in {*np.sctypeDict.values()}),
    "torch.torch_version.TorchVersion",
    *(
        f"{package}.callbacks.{name}"
        for package in ("pytorch_lightning", "lightning.pytorch")
        for name in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping")
    ),
    "omegaconf.base.ContainerMetadata omegaconf.base.Metadata omegaconf.listconfig.ListConfig",
    "omegaconf.dictconfig.DictConfig",
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum")
    ),
)
_MAPPINGS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict",
    "easydict.EasyDict addict.addict.Dict munch.Munch yacs.config.CfgNode fvcore.common.config.CfgNode",
    "mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
)
_SAFE: list[Any] = [
    *((Inert, name) for names in _OBJECTS for name in names.split()),
    *((InertMapping, name) for names in _MAPPINGS for name in names.split()),
]


def load_pickle(path: Path) -> Any:
    """What ``torch.save`` wrote, inert objects as stand-ins.

    Raises:
        WeightsError: it holds a type that could run code, which is named and not run, or it is damaged.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        told = str(error)
        found = re.search(r"GLOBAL (\S+)", told)
        if found is None and not re.search(r"weights_only|Weights only|Unsupported", told):
            raise WeightsError(
                f"{path} cannot be read: it is truncated or damaged ({type(error).__name__})",
                hint="copy or download it again",
            ) from error
        named = f": {found[1]}" if found else ""
        raise WeightsError(
            f"{path} holds more than tensors and plain values, a pickle that could run code{named}. It is "
            "refused, and nothing of it was run",
            hint=f"where you trust it, save its tensors alone: {_command(path)}",
        ) from None


def _command(path: Path) -> str:
    """A command that saves the state dict alone."""
    out = path.with_name(f"{path.name.split('.')[0]}-tensors.pth")
    return (
        f"python -c \"import torch; s = torch.load('{path}', map_location='cpu', weights_only=False); "
        "s = s if isinstance(s, dict) else s.state_dict(); "
        f"torch.save(s.get('state_dict', s.get('model', s)), '{out}')\""
    )
