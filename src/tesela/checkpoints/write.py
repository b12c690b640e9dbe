"""Shared steps of exports to other libraries: open, write, read back, compare.

An export is kept only if reading it back gives every tensor of the model, bit for bit, and the logits of
the model; where transformers is installed, those that it computes are compared too.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.checkpoints.cache import bundle_of
from tesela.checkpoints.certificate import FARTHEST, outputs_of
from tesela.checkpoints.convert import read_carried
from tesela.core.errors import UsageError, WeightsError
from tesela.core.files import folder_atomic, write_atomic
from tesela.models.bundle import BundleInfo, load_bundle
from tesela.models.card import plain_card
from tesela.models.model import file_names

if TYPE_CHECKING:
    from torch import Tensor

    from tesela.imaging.spec import ImageSpec
    from tesela.models.model import Model
    from tesela.models.tensors import Tensors

    #: Outputs by "in LIBRARY VERSION" of a folder for images (B, C, H, W); tokens without a classifier.
    Through = Callable[[Path, Tensor, bool], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReport:
    """Report of an export.

    Attributes:
        format: ``hf``, ``timm`` or ``jax``.
        folder: where.
        architecture: what the other library calls the model.
        files: names and sizes in bytes.
        tensors: number of tensors.
        remarks: what is not quite the same there.
        seconds: of the whole export.
        proved: what computed the model's logits from the files.
    """

    format: str
    folder: Path
    architecture: str
    files: dict[str, int]
    tensors: int
    remarks: list[str]
    seconds: float
    proved: list[str]

    def lines(self) -> list[str]:
        """Lines for a person."""
        size = sum(self.files.values()) / 1e6
        said = (
            f"{self.folder}: {self.architecture}, {self.tensors} tensors, {size:.1f} MB, {self.seconds:.1f} s"
        )
        return [said, f"read back: every tensor equal; logits equal {' and '.join(self.proved)}"]

    def mapping(self) -> dict[str, Any]:
        """All values, for JSON."""
        return {**dataclasses.asdict(self), "bytes": sum(self.files.values())}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A bundle on its way out.

    Attributes:
        bundle: its folder.
        model: the classifier.
        info: its description.
        carried: tensors it keeps for the format it came from.
    """

    bundle: Path
    model: Model
    info: BundleInfo
    carried: Tensors
    started: float = field(default_factory=time.perf_counter)

    @property
    def origin(self) -> dict[str, Any]:
        """What the provenance says of the checkpoint the bundle was converted from."""
        source = self.info.provenance.get("source")
        return dict(source) if isinstance(source, Mapping) else {}

    def labels(self) -> list[str]:
        """The classes' names as they were before equal ones were numbered."""
        kept = self.origin.get("labels")
        return (
            list(kept)
            if isinstance(kept, list) and len(kept) == self.info.num_classes
            else list(self.info.labels)
        )

    def headless(self) -> bool:
        """Whether the classifier is the zero one that stands in for none."""
        zero = all(not parameter.any() for parameter in self.model.head.linear.parameters())  # type: ignore[union-attr]
        return self.origin.get("head") is False and zero

    def tensors(self) -> Tensors:
        """The model's tensors by their names in files."""
        return file_names(self.model, self.model.state_dict())

    def written_tensors(self) -> Tensors:
        """The model's tensors by their names in files, without a classifier that stands in for none."""
        found, headless = self.tensors(), self.headless()
        return {name: one for name, one in found.items() if not (headless and name.startswith("head."))}

    def typed(self, tensors: Tensors) -> Tensors:
        """Tensors in the types they had at their source, where that loses nothing."""
        import torch

        types = self.origin.get("types", {})
        result = {}
        for name, tensor in tensors.items():
            cast = tensor.to(getattr(torch, str(types[name]))) if name in types else tensor
            result[name] = cast if torch.equal(cast.to(tensor.dtype), tensor) else tensor
        return result


def open_export(source: Path | str) -> Exported:
    """The bundle of a run, a bundle or a foreign checkpoint.

    Raises:
        UsageError: there is none.
        WeightsError: it is damaged, or for another task.
    """
    bundle = bundle_of(source)
    model, info = load_bundle(bundle)
    return Exported(bundle=bundle, model=model, info=info, carried=read_carried(bundle, info))


def check_classifier(exported: Exported, program: str) -> None:
    """Refuse a model with another head than a classifier.

    Raises:
        WeightsError: it has one.
    """
    if exported.info.head != "classifier":
        raise WeightsError(
            f"{program} has no place for a {exported.info.architecture} with a {exported.info.head}",
            hint="a classifier fits; this model as a program: tesela export --to onnx",
        )


def write_checkpoint(
    exported: Exported,
    *,
    format: str,
    architecture: str,
    out: Path | str | None,
    source: Path | str,
    weights: str,
    tensors: Tensors,
    texts: Mapping[str, bytes],
    remarks: list[str],
    through: Through | None = None,
) -> CheckpointReport:
    """Write the folder, whole or not at all, and read it back.

    Args:
        exported: the bundle.
        format: the word after ``--to``.
        architecture: what the other library calls the model.
        out: the folder; ``FORMAT`` inside a run, or ``BUNDLE-FORMAT`` beside a bundle, if None.
        source: what the user gave.
        weights: name of the file of tensors; .safetensors or .npz.
        tensors: under their names there.
        texts: other files.
        remarks: for the report.
        through: computes the folder's outputs with the other library, where that is installed.

    Raises:
        UsageError: ``out`` holds something else.
        WeightsError: reading back gives other tensors or logits.
    """
    from tesela.models.tensors import save_tensors

    target = Path(out) if out is not None else default_folder(Path(source), exported.bundle, format)
    check_target(target, exported.bundle, {weights, *texts})
    typed = exported.typed(tensors)
    with folder_atomic(target, needed=sum(tensor.nbytes for tensor in typed.values())) as folder:
        if weights.endswith(".npz"):
            _save_npz(folder / weights, typed)
        else:
            save_tensors(folder / weights, {name: tensor.contiguous() for name, tensor in typed.items()})
        for name, text in texts.items():
            write_atomic(folder / name, text)
        if exported.headless():
            remarks = [
                *remarks,
                f"the classifier of zeros is left out: {architecture} is written without one",
            ]
        proved = check_whole(folder, exported.model, headless=exported.headless(), through=through)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return CheckpointReport(
        format=format,
        folder=target,
        architecture=architecture,
        files=files,
        tensors=len(typed),
        remarks=remarks,
        seconds=time.perf_counter() - exported.started,
        proved=proved,
    )


def _save_npz(path: Path, tensors: Tensors) -> None:
    import numpy as np

    from tesela.core.files import io_call

    arrays: dict[str, Any] = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
    io_call("save_npz", lambda: np.savez(path, **arrays))


def check_whole(
    folder: Path, model: Model, *, headless: bool = False, through: Through | None = None
) -> list[str]:
    """Read an exported folder back, and compare every tensor and the outputs for one image of noise.

    Args:
        folder: the export.
        model: what it was made of.
        headless: whether the model's head stands in for none; its tokens are compared then.
        through: computes its outputs with the other library.

    Returns:
        what computed equal outputs, for people.

    Raises:
        WeightsError: a tensor or an output differs; it is named.
    """
    import torch

    from tesela.checkpoints.open import open_foreign

    size = model.config.image_size
    found = open_foreign(
        folder,
        image_size=size,
        num_classes=model.num_classes if headless else None,
        heads=getattr(model.config, "heads", None),
        new_head=headless,
    ).model
    back = file_names(found, found.state_dict())
    for name, tensor in file_names(model, model.state_dict()).items():
        if name not in back or not torch.equal(back[name], tensor):
            raise WeightsError(
                f"what was exported reads back differently: {name}",
                hint="please report this; the bundle itself is whole",
            )
    noise = torch.randn(1, model.config.channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, read = (outputs_of(one, noise, headless) for one in (model, found))
        others = _through(through, folder, noise, headless) if through is not None else {}
    for program, outputs in {"here": read, **others}.items():
        error = float((outputs - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-6)
        if not error <= FARTHEST:
            raise WeightsError(
                f"what was exported computes other outputs {program}: {error:.1e} of the largest",
                hint="please report this; the bundle itself is whole",
            )
    return ["here", *others]


def _through(through: Through, folder: Path, images: Tensor, headless: bool) -> dict[str, Tensor]:
    """Outputs by the other library.

    Raises:
        WeightsError: it cannot load the folder.
    """
    try:
        return through(folder, images, headless)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"what was exported is not loaded by the library that it is for: {' '.join(str(error).split())}",
            hint="please report this; the bundle itself is whole",
        ) from error


def default_folder(source: Path, bundle: Path, format: str) -> Path:
    """``RUN/FORMAT`` for a run, ``BUNDLE-FORMAT`` beside a bundle, else below the current folder."""
    source = source.resolve()
    if bundle.resolve() == source / "bundle":
        return source / format
    if bundle.resolve() == source:
        return source.with_name(f"{source.name}-{format}")
    return Path.cwd() / f"{bundle.name}-{format}"


def check_target(target: Path, bundle: Path, names: set[str]) -> None:
    """Refuse to replace anything but an earlier export, which consists of files of these names.

    Raises:
        UsageError: it holds the bundle itself, or something else.
    """
    if bundle.resolve().is_relative_to(target.resolve()):
        raise UsageError(
            f"{target} holds the bundle that is exported", hint="choose another folder with --out"
        )
    if target.exists() and not (target.is_dir() and {path.name for path in target.iterdir()} <= names):
        raise UsageError(f"{target} exists and is no earlier export", hint="choose a new folder with --out")


def crop_remarks(image: ImageSpec, library: str) -> list[str]:
    """What is not quite the same where the library cuts the middle out of an image."""
    if image.arithmetic == library or not (image.resize == "crop" or image.resized):
        return []
    apart = "up to half a pixel" if image.arithmetic == "exact" else "at most one pixel"
    return [f"{library} cuts the middle out at whole pixels of its own, {apart} beside the model's"]


def as_json(value: Any) -> bytes:
    """Indented JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def export_card(info: BundleInfo, *, library: str, loading: str) -> bytes:
    """README.md of an export.

    Args:
        info: the bundle's description.
        library: the one that loads it.
        loading: the lines of Python that do.
    """
    spec = info.image
    lines = "".join(f"    {line}\n" for line in loading.splitlines())
    return plain_card(
        info,
        f"A classifier with {info.num_classes} classes, written by tesela for {library}:\n\n{lines}",
        f"Input: {spec.channels} x {spec.height} x {spec.width}, scaled to 0..1, minus {list(spec.mean)}, "
        f"over {list(spec.std)}.",
        library=library,
    ).encode()
