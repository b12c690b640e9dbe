"""Exported programs: bundle, contract, card, and the report of an export."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tesela.checkpoints.cache import bundle_of
from tesela.checkpoints.write import check_target, default_folder
from tesela.core.errors import WeightsError
from tesela.core.files import folder_atomic, sha256_file, write_text
from tesela.exporters.contract import BOUNDS, Computation, Contract, ProgramRow, measure_contract
from tesela.exporters.options import ExportOptions
from tesela.exporters.samples import Samples, collect_samples
from tesela.models.bundle import WEIGHTS, BundleInfo, write_info
from tesela.models.card import plain_card
from tesela.runtime.backends.base import FEATURES, open_backend
from tesela.runtime.footprint import resident_bytes
from tesela.runtime.predictor import Predictor

#: Names of all files that a program's bundle may hold.
FILES = frozenset(
    ["README.md", "config.json", "model.onnx", "model.onnx.data", "openvino.xml", "openvino.bin", "model.pt2"]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramReport:
    """Report of an export.

    Attributes:
        format: ``onnx``, ``openvino`` or ``compiled``.
        precision: of the program.
        bundle: the folder.
        bytes: size of all its files.
        contract: what was measured.
        outputs: names of what the program gives.
        sizes: sizes at which it was compared beside its own; none where the size is fixed.
        remarks: what a person should know.
        seconds: of the whole export.
    """

    format: str
    precision: str
    bundle: Path
    bytes: int
    contract: Contract
    outputs: tuple[str, ...]
    sizes: list[tuple[int, int]]
    remarks: list[str]
    seconds: float

    def lines(self) -> list[str]:
        """Lines for a person."""
        said = (
            f"{self.bundle}: {self.format}, {self.precision}, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s"
        )
        row = self.contract.program
        return [
            said,
            f"difference to torch on {self.contract.kind} images: {row.max_abs_logits:.2e} in a logit, "
            f"{row.max_abs_probability:.2e} in a probability, same class for {row.agreement:.1%}",
            *self.contract.lines(),
        ]

    def mapping(self) -> dict[str, Any]:
        """All values, for JSON."""
        row = self.contract.program
        return {
            "format": self.format,
            "precision": self.precision,
            "bundle": str(self.bundle),
            "bytes": self.bytes,
            "images": self.contract.kind,
            "outputs": list(self.outputs),
            "sizes": [list(size) for size in self.sizes],
            "max_abs_logits": row.max_abs_logits,
            "max_abs_probability": row.max_abs_probability,
            "same_label": row.agreement,
            "contract": self.contract.mapping(),
            "remarks": self.remarks,
            "seconds": self.seconds,
        }


@dataclass(kw_only=True)
class Export:
    """An export under way.

    Attributes:
        bundle: the folder that is exported.
        reference: its model in PyTorch, fp32.
        samples: images.
        options: what is wanted.
        format: of the program.
        folder: where files are written.
        outputs: names of what the program gives.
        sizes: at which it was compared.
        remarks: what a person should know.
        facts: more for ``program`` in config.json.
        others: further precisions of the engine, to compare with.
    """

    bundle: Path
    reference: Predictor
    samples: Samples
    options: ExportOptions
    format: str
    folder: Path
    outputs: tuple[str, ...] = ("logits",)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    others: list[tuple[ProgramRow, Computation]] = field(default_factory=list)

    @property
    def info(self) -> BundleInfo:
        """Description of what is exported."""
        return self.reference.info

    def described(self, folder: Path, *, precision: str | None = None) -> BundleInfo:
        """The description of the program whose files lie in ``folder``, with their digests."""
        files = sorted(
            path for path in folder.iterdir() if path.name in FILES and path.suffix not in (".md", ".json")
        )
        named = next(path.name for path in files if path.suffix in (".onnx", ".xml", ".pt2"))
        program = {
            "format": self.format,
            "precision": precision or self.options.precision,
            "file": named,
            "outputs": list(self.outputs),
            **self.facts,
        }
        provenance = {
            **self.info.provenance,
            "exported": {"format": self.format, "precision": program["precision"]},
        }
        digests = {path.name: sha256_file(path) for path in files}
        return dataclasses.replace(self.info, digests=digests, program=program, provenance=provenance)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFormat:
    """A format of programs; its call exports.

    Attributes:
        name: of the format.
        engine: the backend that computes it.
        check: refuses options that the format does not have, and machines that cannot make it.
        write: writes the program's files into the export's folder.
    """

    name: str
    engine: str
    check: Callable[[ExportOptions], None]
    write: Callable[[Export], None]

    def __call__(
        self, source: Path | str, out: Path | str | None = None, *, options: ExportOptions | None = None
    ) -> ProgramReport:
        """Write a program as a bundle, if it keeps its contract.

        Args:
            source: a run folder or a bundle with model.safetensors.
            out: the folder to write; by default FORMAT inside the run, or ``<bundle>-FORMAT`` beside the
                bundle.
            options: what is wanted.

        Raises:
            MissingExtraError: a package that makes such programs is not installed.
            UsageError: ``out`` holds something else, real images are missing, or the format has no such
                option.
            WeightsError: the network has no place in the format, or the program breaks a bound; nothing is
                written.
        """
        started, options = time.perf_counter(), options or ExportOptions()
        self.check(options)
        bundle = bundle_of(source)
        target = Path(out) if out is not None else default_folder(Path(source), bundle, self.name)
        check_target(target, bundle, set(FILES))
        reference = Predictor(bundle, backend="torch", precision="fp32")
        samples = collect_samples(
            Path(source),
            options.data,
            reference,
            calibrate=options.precision in ("int8", "int8-weights"),
            needed=options.precision == "int8",
        )
        with folder_atomic(target, needed=2 * (bundle / WEIGHTS).stat().st_size) as folder:
            job = Export(
                bundle=bundle,
                reference=reference,
                samples=samples,
                options=options,
                format=self.name,
                folder=folder,
            )
            self.write(job)
            info, contract = self._measured(job)
            contract.refuse(force=options.force)
            job.remarks += [f"kept by --force: {problem}" for problem in contract.problems]
            info = dataclasses.replace(info, provenance={**info.provenance, "contract": contract.mapping()})
            write_info(folder, info)
            write_text(folder / "README.md", program_card(info, contract, job, self.engine))
            size = sum(path.stat().st_size for path in folder.iterdir())
        return ProgramReport(
            format=self.name,
            precision=options.precision,
            bundle=target,
            bytes=size,
            contract=contract,
            outputs=job.outputs,
            sizes=job.sizes,
            remarks=job.remarks,
            seconds=time.perf_counter() - started,
        )

    def _measured(self, job: Export) -> tuple[BundleInfo, Contract]:
        """Description and contract of what was written."""
        folder, reference, precision = job.folder, job.reference, job.options.precision
        info = job.described(folder)
        write_info(folder, info)
        program = open_backend(self.engine, folder, info)
        row = ProgramRow(name=f"{self.engine} {precision}")
        row.bytes = sum(path.stat().st_size for path in folder.iterdir())
        (row.memory,) = resident_bytes(folder, self.engine, precision, [1], threads=1)
        contract = measure_contract(
            job.samples,
            reference.task,
            info,
            reference=reference.backend.logits,
            others=job.others,
            program=(row, program.logits),
            bounds=BOUNDS[precision],
        )
        contract.reference.bytes = (job.bundle / WEIGHTS).stat().st_size
        if FEATURES in job.outputs:
            from tesela.exporters.features import feature_similarity

            similarity = feature_similarity(job.samples, program, reference.backend)
            contract.hold_features(similarity)
            job.remarks.append(f"its features have a mean cosine similarity of {similarity:.6f} with torch's")
        return info, contract


def compare_sizes(job: Export, compute: Computation, step: tuple[int, int]) -> None:
    """Hold an fp32 program against the model at sizes other than its own, square and not.

    Raises:
        WeightsError: it differs by more than the bound.
    """
    limit = BOUNDS["fp32"].logits or 0.0
    height, width = job.info.image.size
    rows, columns = max(1, height // step[0] // 4), max(1, width // step[1] // 4)
    for size in ((height, width + columns * step[1]), (height + rows * step[0], width)):
        shape = (2, job.info.image.channels, *size)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        difference = float(np.abs(job.reference.backend.logits(images) - compute(images)).max())
        if not difference <= limit:
            raise WeightsError(
                f"the {job.format} program differs from torch by {difference:.2e} in a logit at "
                f"{size[0]} x {size[1]} pixels, more than {limit:.0e}",
                hint="nothing was written; report the model's configuration",
            )
        if size not in job.sizes:
            job.sizes.append(size)


def program_card(info: BundleInfo, contract: Contract, job: Export, engine: str) -> str:
    """The README of the exported bundle."""
    spec, step, apart = info.image, job.facts.get("step"), "model.onnx.data" in info.digests
    free = (
        f"any batch size; height and width may be other multiples of {step[0]} and {step[1]}"
        if step
        else "any batch size"
    )
    kinds = {
        "logits": f"float32 (batch, {info.num_classes}"
        + (", height, width)" if job.reference.network.kind != "classifier" else ")"),
        "map": "float32 (batch, height, width), what spoke for the class, as `tesela explain` has it",
        "rollout": "float32 (batch, height, width), attention rollout",
        FEATURES: "float32 (batch, width), what the head reads: an embedding of the image",
    }
    without = "" if job.format == "compiled" else " It predicts without PyTorch:"
    parts: Sequence[str] = (
        f"A model with {info.num_classes} classes as a program for {engine} in "
        f"{info.program['precision']}, written by tesela.{without}",
        "    tesela predict FOLDER image.jpg",
        f"- input `images`: float32 (batch, {spec.channels}, {spec.height}, {spec.width}), normalised as "
        f"config.json says; {free}\n"
        + "\n".join(f"- output `{name}`: {kinds[name]}" for name in job.outputs)
        + "\n- the labels' names are in config.json"
        + ("\n- the weights are in `model.onnx.data`, which must lie beside `model.onnx`" if apart else ""),
        "## Contract",
        contract.markdown(),
        *(["\n".join(f"- {remark}" for remark in job.remarks)] if job.remarks else []),
    )
    return plain_card(
        info,
        *parts,
        title=f"{info.name} ({job.format}, {info.program['precision']})",
        pipeline_tag=job.reference.task.pipeline_tag,
    )
