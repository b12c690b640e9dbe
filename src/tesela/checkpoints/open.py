"""Open a model by run, bundle, foreign folder or file, ``hub:NAME[@REVISION]``, or name.

What it is stands in its files, never in its name. Odd: this module imports no torch; the readers that do are
imported when needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.checkpoints.hub import HUB_PREFIX, download
from tesela.core.errors import UnknownNameError, UsageError, WeightsError
from tesela.core.registry import entries, register
from tesela.models import catalog
from tesela.models.bundle import CONFIG, BundleInfo, load_bundle
from tesela.models.pretrained import find_pretrained

if TYPE_CHECKING:
    from tesela.checkpoints.foreign import Foreign, Opened
    from tesela.models.model import Model

# Formats by the order in which they are tried: each target takes a Place and gives a Foreign, or None if it
# is not its own.
register("format", "jax", target="tesela.checkpoints.jax.read:find_jax", summary=".npz of the paper's code")
register(
    "format",
    "resnet",
    target="tesela.checkpoints.resnet.read:find_resnet",
    summary="residual networks of transformers and timm",
)
register(
    "format",
    "convnext",
    target="tesela.checkpoints.convnext.read:find_convnext",
    summary="ConvNeXt of transformers and timm",
)
register(
    "format", "swin", target="tesela.checkpoints.swin.read:find_swin", summary="Swin of transformers and timm"
)
register(
    "format",
    "tiny_vit",
    target="tesela.checkpoints.tiny_vit.read:find_tiny_vit",
    summary="TinyViT of timm",
)
register(
    "format",
    "huggingface",
    target="tesela.checkpoints.huggingface.read:find_huggingface",
    summary="transformers",
)
register(
    "format", "timm", target="tesela.checkpoints.timm.read:find_timm", summary="timm's VisionTransformer"
)
register(
    "format",
    "resnet_file",
    target="tesela.checkpoints.resnet.read:find_resnet_file",
    summary="residual networks of timm and torchvision without a config",
)
register(
    "format",
    "convnext_file",
    target="tesela.checkpoints.convnext.read:find_convnext_file",
    summary="ConvNeXt of timm without a config",
)
register(
    "format",
    "tiny_vit_file",
    target="tesela.checkpoints.tiny_vit.read:find_tiny_vit_file",
    summary="TinyViT of timm without a config",
)
register(
    "format",
    "swin_file",
    target="tesela.checkpoints.swin.read:find_swin_file",
    summary="Swin of timm and of the official code without a config",
)

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".tar")


def open_model(
    source: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    device: str = "cpu",
    fresh: bool = False,
    new_head: bool = False,
) -> tuple[Model, BundleInfo]:
    """A classifier in evaluation mode, and its description.

    Args:
        source: a run or bundle, a Hugging Face folder, a timm .safetensors or .pth, a JAX .npz,
            ``hub:NAME[@REVISION]``.
        image_size: another side or (height, width); learned positions are interpolated. Where a checkpoint's
            positions leave its size open, the size they belong to.
        num_classes: another number of classes; the head is then a new one of zeros.
        device: where the weights go.
        fresh: take a model's name too, with weights drawn from torch's global generator.
        new_head: put a head of zeros in the place of one that does not choose one class, as in multi-label
            models, which are refused else.

    Returns:
        the model: normalised images (B, C, H, W), float32, to logits (B, K); and its info, which is
        ``model.info`` too.

    Raises:
        UsageError: there is nothing at ``source``.
        WeightsError: it is damaged, of an unknown architecture, or does not fit; tensors are named.
        ConfigError: ``image_size`` does not fit the model.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    source = resolve_alias(source)
    bundle = bundle_at(source)
    if bundle is not None:
        model, info = load_bundle(bundle, image_size=size)
        if num_classes is not None and num_classes != info.num_classes:
            info = _with_new_head(model, info, num_classes)
    elif fresh and not Path(source).exists() and str(source) in catalog.model_names():
        return _fresh(str(source), size, num_classes)
    else:
        from tesela.checkpoints.foreign import announce

        opened = open_foreign(source, image_size=size, num_classes=num_classes, new_head=new_head)
        announce(opened.remarks)
        model, info = opened.model, opened.info
    return model.to(device), info


def resolve_alias(source: str | Path) -> str | Path:
    """The repository behind a name of ``tesela models --pretrained``; anything else, or a path, as it is."""
    known = find_pretrained(str(source))
    return known.source if known is not None and not Path(source).exists() else source


def bundle_at(source: str | Path) -> Path | None:
    """The bundle folder of a run or bundle; None where ``source`` is something else."""
    if str(source).startswith(HUB_PREFIX):
        return None
    for folder in (Path(source), Path(source) / "bundle"):
        if (folder / CONFIG).is_file():
            found = _read_config(folder)
            ours = (
                "architectures" not in found
                and "model_type" not in found
                and "pretrained_cfg" not in found
                and "format" in found
            )
            if ours or not found:
                return folder
    return None


def _read_config(folder: Path) -> dict[str, Any]:
    """Its config.json; empty where it is damaged, which the reader of bundles then says."""
    import json

    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def open_foreign(
    source: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    heads: int | None = None,
    new_head: bool = False,
) -> Opened:
    """A classifier made of a foreign checkpoint, with what an export back to its format needs.

    Args:
        source: as of ``open_model``, but for runs and bundles.
        image_size: another (height, width).
        num_classes: another number of classes.
        heads: of an attention, for a timm checkpoint without a config.
        new_head: as of ``open_model``.

    Raises:
        UsageError: there is nothing at ``source``.
        WeightsError: it is damaged, of an unknown architecture, or does not fit.
    """
    from tesela.checkpoints.foreign import assemble

    origin: dict[str, Any] = {}
    path = Path(source)
    if str(source).startswith(HUB_PREFIX):
        fetched = download(str(source))
        path, origin = fetched.folder, {"hub": fetched.name, "revision": fetched.revision}
        name = fetched.name.rpartition("/")[2]
    else:
        name = path.resolve().stem if path.is_file() else path.resolve().name
    found = read_foreign(path, image_size=image_size, heads=heads)
    return assemble(
        found, name=name, image_size=image_size, num_classes=num_classes, origin=origin, new_head=new_head
    )


def read_foreign(
    path: Path, *, image_size: tuple[int, int] | None = None, heads: int | None = None
) -> Foreign:
    """The checkpoint in a folder or file, by the first format that knows it.

    Raises:
        UsageError: there is nothing at ``path``.
        WeightsError: it is damaged, or no format knows it.
    """
    from tesela.checkpoints.files import read_file, read_mapping
    from tesela.checkpoints.foreign import Place

    if not path.exists():
        raise _nothing(str(path))
    folder = path if path.is_dir() else path.parent
    file = folder / CONFIG
    weights = None if path.is_dir() else path
    if weights is None and not file.is_file():
        weights = _only_file(folder)
    if weights is not None and weights.suffix not in ENDINGS:
        if weights.suffix == ".gguf":
            raise WeightsError(
                f"{weights} holds quantised weights (GGUF), which are not read",
                hint="give the model they were made of, as .safetensors",
            )
        raise WeightsError(
            f"{weights} is no weight file that is known", hint="known endings are " + ", ".join(ENDINGS)
        )
    config = read_mapping(file) if file.is_file() and (weights is None or weights.suffix != ".npz") else {}
    place = Place(folder=folder, config=config, weights=weights, image_size=image_size, heads=heads)
    for entry in entries("format"):
        found: Foreign | None = entry.load()(place)
        if found is not None:
            return found
    if weights is None:
        raise WeightsError(
            f"{file} names no architecture: neither transformers nor timm nor tesela wrote it",
            hint="give the whole folder",
        )
    shown = ", ".join(sorted(read_file(weights).tensors)[:3])
    raise WeightsError(
        f"{weights} is of an unknown architecture (it holds {shown}, ...)",
        hint="timm names are known alone; a Hugging Face checkpoint needs its config.json beside it",
    )


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    if len(files) == 1:
        return files[0]
    if files:
        raise UsageError(
            f"{folder} holds {len(files)} weight files and no {CONFIG}",
            hint=f"give one of them, such as {files[0]}",
        )
    raise UsageError(
        f"{folder} is neither a run nor a bundle, and holds no weights",
        hint="give the folder that tesela train --out wrote",
    )


def _nothing(source: str) -> UsageError:
    if source in catalog.model_names():
        return UsageError(
            f"{source} is the name of a model without weights",
            hint="give a run, a bundle or a checkpoint; train one first",
        )
    near = (
        UnknownNameError("source", source, catalog.model_names()).hint
        if "/" not in source and "." not in source
        else ""
    )
    hint = near if near.startswith("did you mean") else "check the path; a hub repository is hub:OWNER/NAME"
    return UsageError(f"there is no run, bundle or checkpoint at {source}", hint=hint)


def _with_new_head(model: Any, info: BundleInfo, num_classes: int) -> BundleInfo:
    """The info after the head was replaced by zeros."""
    from dataclasses import replace

    from tesela.core.config import to_mapping

    model.reset_head(num_classes)
    labels = [f"class {index}" for index in range(num_classes)]
    model.info = replace(
        info, num_classes=num_classes, labels=labels, model=to_mapping(model.config), digests={}, metrics={}
    )
    new: BundleInfo = model.info
    return new


def _fresh(name: str, size: tuple[int, int] | None, num_classes: int | None) -> tuple[Model, BundleInfo]:
    """A named model with initial weights."""
    from tesela.checkpoints.foreign import image_spec
    from tesela.models.bundle import describe
    from tesela.models.factory import create_model

    model = create_model(name, num_classes=num_classes or 10, image_size=size).eval()
    image = image_spec(model.config.image_size, model.config.channels)
    labels = [f"class {index}" for index in range(model.num_classes)]
    model.info = describe(
        model, name=name, labels=labels, image=image, provenance={"source": {"format": "fresh"}}
    )
    return model, model.info
