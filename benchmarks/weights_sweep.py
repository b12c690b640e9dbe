"""Does every Vision Transformer of timm and transformers read right, or is it refused with a reason?

    python benchmarks/weights_sweep.py --timm FOLDER [--only PATTERN] [--write docs/weights.md]

FOLDER holds timm and torchvision as in training_step.py. Each name becomes a small model with random
weights, nowhere zero, the queries and keys large enough that attention matters; the heads, norms and
activations are those of the name. It is saved as its own library saves it, opened here, and both compute
the same images in float64. Right is 1e-5 of the largest output; a refusal has a message; anything else is
a silent difference, and the exit code 1. `--write` puts the counts into the page between its markers.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sweep_transformers import transformers_models
from torch import Tensor, nn

import tesela as ts
from tesela.core.errors import TeselaError
from tesela.layers.trace import Trace

LIMIT = 1e-5
#: Width of a head, and blocks, of the small models.
PER_HEAD, DEPTH = 16, 2
MARKERS = ("<!-- sweep -->\n", "<!-- /sweep -->\n")


class Outcome(NamedTuple):
    """What became of one name: ``right``, ``refused`` or ``different``, and the error or the message."""

    program: str
    kind: str
    name: str
    verdict: str
    said: str


def shaken(model: nn.Module, seed: int = 0) -> Any:
    """The model in evaluation mode with random weights whose attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2 and "token" not in name and "pos" not in name:
            drawn *= parameter[0].numel() ** -0.5
        drawn *= 3.0 if re.search(r"(qkv|q_proj|k_proj|query|key)\.weight", name) else 1.0
        if parameter.ndim < 2:
            drawn = drawn * 0.2 + (
                1.0 if name.endswith("weight") or "gamma" in name or "scale" in name else 0.0
            )
        parameter.data = drawn
    return model.eval()


def compared(folder: Path, theirs: Tensor, images: Tensor, *, tokens: bool) -> tuple[str, str]:
    """Verdict and what was said, of a saved model and its outputs in float64."""
    try:
        ours: Any = ts.load(folder)
    except TeselaError as error:
        return "refused", error.message
    ours = ours.double()
    try:
        with torch.no_grad():
            found = ours.features(images).tokens if tokens else _asked(ours, images)
    except TeselaError as error:
        return "different", error.message
    if found.shape != theirs.shape:
        return "different", f"{tuple(found.shape)} for {tuple(theirs.shape)}"
    error_ = float((found - theirs).abs().max() / theirs.abs().max())
    return ("right" if error_ <= LIMIT else "different"), f"{error_:.1e}"


def _asked(model: Any, images: Tensor) -> Tensor:
    """Logits, or what the head of zeros of a bare body would read."""
    head = model.info.provenance["source"]["head"]
    found: Tensor = model(images) if head else model.pooled(images, trace=Trace())
    return found


def timm_outcomes(timm: Any, only: str) -> Iterator[Outcome]:
    """Every Vision Transformer of timm."""
    from tesela.checkpoints.timm.architectures import _table

    for name, (kind, arguments) in _table()["architectures"].items():
        if not fnmatch.fnmatch(name, only):
            continue
        if kind.startswith(
            "SwinTransformerV2"
        ):  # must be refused for its name; some have billions of weights
            with tempfile.TemporaryDirectory() as place:
                stated = {"architecture": name, "pretrained_cfg": {}}
                (Path(place) / "config.json").write_text(json.dumps(stated), encoding="utf-8")
                yield Outcome("timm", kind, name, *refused(Path(place)))
            continue
        changed: dict[str, Any] = {"depth": DEPTH}
        if "depths" in arguments:  # in stages
            changed = {"depths": [DEPTH] * len(arguments["depths"])}
            changed["embed_dim"] = PER_HEAD * arguments["num_heads"][0]
        elif "num_heads" in arguments:
            changed["embed_dim"] = PER_HEAD * arguments["num_heads"]
        if arguments.get("num_kv_heads"):
            changed["num_kv_heads"] = arguments["num_kv_heads"][:1] + arguments["num_kv_heads"][-1:]
        with tempfile.TemporaryDirectory() as place:
            try:
                model = shaken(timm.create_model(name, num_classes=5, **changed))
            except (TypeError, RuntimeError, AssertionError, ValueError):
                model = timm.create_model(name, num_classes=5).eval()
                changed = {}
            timm.models._hub.save_for_hf(model, place, model_args=changed)
            size = model.pretrained_cfg["input_size"]
            images = torch.randn(1, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            with torch.no_grad():
                theirs = model.double()(images)
            yield Outcome("timm", kind, name, *compared(Path(place), theirs, images, tokens=False))


def outcomes(timm: Any, only: str) -> Iterator[Outcome]:
    """All of both libraries."""
    yield from timm_outcomes(timm, only)
    for name, kind, model, images, theirs, tokens in transformers_models(only, shaken):
        place = Path(tempfile.mkdtemp())
        try:
            model.save_pretrained(place)
            verdict, said = compared(place, theirs(), images, tokens=tokens) if theirs else refused(place)
            yield Outcome("transformers", kind, name, verdict, said)
        finally:
            shutil.rmtree(place)


def refused(folder: Path) -> tuple[str, str]:
    """Verdict on a folder with a config.json alone, which must be refused for its name."""
    try:
        ts.load(folder)
    except TeselaError as error:
        named = "not known" in error.message or "not computed" in error.message
        return ("refused" if named else "different"), error.message
    return "different", "was opened"


def table(found: list[Outcome], versions: dict[str, str]) -> str:
    """The counts as a Markdown table."""
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in found:
        counts[one.program, one.kind][one.verdict] += 1
    lines = ["| library | class | right | refused | different |", "|---|---|---|---|---|"]
    for (library, kind), verdicts in sorted(counts.items()):
        if verdicts["right"] or verdicts["different"] or library == "timm":
            row = " | ".join(str(verdicts[verdict]) for verdict in ("right", "refused", "different"))
            lines.append(f"| {library} {versions[library]} | {kind} | {row} |")
    rest = sum(
        count["refused"]
        for (library, _), count in counts.items()
        if library == "transformers" and not count["right"] and not count["different"]
    )
    if rest:
        lines.append(
            f"| transformers {versions['transformers']} | all other vision models | 0 | {rest} | 0 |"
        )
    total = collections.Counter(one.verdict for one in found)
    row = " | ".join(f"**{total[verdict]}**" for verdict in ("right", "refused", "different"))
    return "\n".join([*lines, f"| both | all | {row} |", ""])


def main() -> int:
    """Sweep, print, and write the table where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timm", required=True, help="folder with timm and torchvision")
    parser.add_argument("--only", default="*", help="names of this pattern")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    sys.path.insert(0, options.timm)
    import transformers
    from training_step import import_timm

    warnings.simplefilter("ignore")
    timm = import_timm()
    found = []
    for one in outcomes(timm, options.only):
        found.append(one)
        print(f"{one.verdict:9} {one.program:12} {one.kind:26} {one.name:46} {one.said[:160]}", flush=True)
    text = table(found, {"timm": timm.__version__, "transformers": transformers.__version__})
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(MARKERS[0])
        options.write.write_text(before + MARKERS[0] + text + MARKERS[1] + rest.partition(MARKERS[1])[2])
    return int(any(one.verdict == "different" for one in found))


if __name__ == "__main__":
    sys.exit(main())
