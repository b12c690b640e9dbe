"""Are our logits timm's? timm's weights here, our weights there, through files.

And do they come back unchanged?

    python benchmarks/parity_timm.py --timm FOLDER

FOLDER holds timm and torchvision as in training_step.py. Weights are random but nowhere zero, so that every
tensor matters. Each case is saved as timm saves it for the hub, opened here, compared, exported, and loaded
again by timm; where timm can, at another image size too, for which both interpolate their positions. The
limit is 1e-5 relative to the largest logit, in fp32. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from training_step import import_timm

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}

# timm's name, what is changed.
THEIRS: list[tuple[str, dict[str, Any]]] = [
    ("vit_tiny_patch16_224", {}),
    ("vit_small_patch16_224", {"img_size": (160, 288)}),
    ("vit_small_patch32_224", {}),
    ("vit_base_patch16_224", {}),
    ("deit_tiny_distilled_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 98}),
    ("vit_giant_patch14_reg4_dinov2", TINY),
    ("vit_base_patch16_224", {**TINY, "reg_tokens": 3}),
    ("vit_base_patch16_224", {**TINY, "global_pool": "avg", "class_token": False}),
    ("vit_base_patch16_224", {**TINY, "global_pool": "avg"}),
    ("vit_base_patch16_224", {**TINY, "global_pool": "avg", "fc_norm": False, "class_token": False}),
    ("vit_base_patch16_224", {**TINY, "global_pool": "avg", "reg_tokens": 2}),
    ("vit_base_patch16_224", {**TINY, "global_pool": "map", "class_token": False}),
    ("vit_base_patch16_224", {**TINY, "qkv_bias": False, "init_values": 0.5, "no_embed_class": True}),
    ("vit_base_patch16_224", {**TINY, "pos_embed": "none", "act_layer": "gelu_tanh"}),
]
SMALL = {"depths": [1, 1, 2, 1], "dims": [16, 24, 32, 48]}
NARROW = {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 4]}

# The same of models in stages, for images of any size.
IN_STAGES: list[tuple[str, dict[str, Any]]] = [
    ("convnext_tiny", SMALL),
    ("convnext_tiny", {**SMALL, "num_classes": 0}),
    ("convnext_tiny", {**SMALL, "patch_size": 1, "in_chans": 1, "norm_eps": 1e-5}),
    ("convnext_tiny", {**SMALL, "use_grn": True}),
    ("convnext_pico", {}),
    ("convnext_nano", {"num_classes": 0}),
    ("convnext_small", {}),
    ("convnextv2_atto", {}),
    ("convnextv2_nano", {}),
    ("convnextv2_pico", {"num_classes": 0}),
    ("convnextv2_tiny", {**SMALL, "use_grn": False}),
    ("tiny_vit_5m_224", {}),
    ("tiny_vit_11m_224", {"num_classes": 0}),
    ("tiny_vit_21m_384", {}),
    ("tiny_vit_5m_224", {**NARROW, "window_sizes": [3, 3, 4, 2], "mlp_ratio": 2.7, "in_chans": 1}),
    ("tiny_vit_5m_224", {**NARROW, "num_classes": 0}),
    ("resnet18", {}),
    ("resnet34", {"num_classes": 0}),
    ("resnet50", {}),
    ("resnet50", {"layers": [1, 2, 1, 1], "in_chans": 1}),
    ("swin_tiny_patch4_window7_224", {"num_classes": 0}),
]

# Our name, what is changed.
OURS: list[tuple[str, dict[str, Any]]] = [
    ("vit_lite7_p4", {"depth": 2}),
    ("vit_lite7_p4", {"depth": 2, "image_size": (32, 48), "patch_size": (4, 8)}),
    ("vit_lite7_p4", {"depth": 2, "registers": 3}),
    ("vit_lite7_p4", {"depth": 2, "registers": 3, "prefix_positions": False}),
    ("vit_lite7_p4", {"depth": 2, "pool": "mean", "registers": 2}),
    ("vit_lite7_p4", {"depth": 2, "pool": "mean", "final_norm": False, "pooled_norm": True}),
    ("vit_lite7_p4", {"depth": 2, "pool": "attention"}),
    ("vit_lite7_p4", {"depth": 2, "mlp": "swiglu", "layer_scale": 0.1}),
    ("deit_ti16", {"depth": 2, "image_size": (64, 64)}),
    ("convnext_tiny", {"depths": (1, 1, 2, 1), "image_size": (64, 96)}),
    ("convnextv2_atto", {"image_size": (64, 64)}),
    ("convnextv2_atto_small", {"image_size": (36, 32)}),
    ("tiny_vit_5m", {"image_size": (72, 64)}),
    ("tiny_vit_11m", {"depths": (1, 1, 1, 1), "image_size": (64, 64)}),
    ("resnet18", {"image_size": (64, 96)}),
    ("resnet50", {"image_size": (64, 64)}),
]


def shaken(model: torch.nn.Module) -> Any:
    """The model in evaluation mode, no tensor of it zero."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for name, running in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(running, std=0.05)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(running, 0.001, 0.1)
    return model.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def read(timm: Any, name: str, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """timm's model here, and back."""
    from timm.models import save_for_hf

    reference = shaken(timm.create_model(name, num_classes=10, **changes))
    save_for_hf(reference, folder / "timm", safe_serialization=True)
    config = json.loads((folder / "timm/config.json").read_text())
    size = tuple(reference.patch_embed.img_size)
    config["model_args"] = {
        **(config.get("model_args") or {}),
        **json.loads(json.dumps(changes)),
        "img_size": list(size),
    }
    config["model_args"].setdefault("num_heads", reference.blocks[0].attn.num_heads)
    (folder / "timm/config.json").write_text(json.dumps(config))
    model = open_model(folder / "timm")[0]
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        row = {"timm": name, **changes, "relative": relative(model(images), reference(images))}
        if reference.pos_embed is not None:
            patch = reference.patch_embed.patch_size
            other = (size[0] + 2 * patch[0], size[1] + 3 * patch[1])
            reference.set_input_size(img_size=other)
            images = torch.randn(1, 3, *other)
            row["relative_resized"] = relative(model(images), reference(images))
    convert_checkpoint(folder / "timm", folder / "bundle")
    export_timm(folder / "bundle", folder / "back")
    before, after = load_file(folder / "timm/model.safetensors"), load_file(folder / "back/model.safetensors")
    row["round_trip"] = before.keys() == after.keys() and all(
        torch.equal(before[key], after[key]) for key in before
    )
    return row


def read_in_stages(timm: Any, name: str, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """timm's model here at two sizes, and back, where timm loads it; without a classifier by its last map."""
    from timm.models import save_for_hf

    reference = shaken(timm.create_model(name, **{"num_classes": 10, **changes}))
    save_for_hf(reference, folder / "timm", safe_serialization=True)
    config = json.loads((folder / "timm/config.json").read_text())
    config["model_args"] = {**(config.get("model_args") or {}), **json.loads(json.dumps(changes))}
    (folder / "timm/config.json").write_text(json.dumps(config))
    head = bool(changes.get("num_classes", 10))
    model = open_model(folder / "timm", num_classes=None if head else 2)[0]
    row: dict[str, Any] = {"timm": name, **changes}
    convert_checkpoint(folder / "timm", folder / "bundle")
    export_timm(folder / "bundle", folder / "back")
    again = timm.create_model(f"local-dir:{folder / 'back'}", pretrained=True).eval()
    swin = name.startswith("swin")
    sizes = {"relative": (224, 224)} if swin else {"relative": (96, 96), "relative_resized": (75, 110)}
    for key, size in sizes.items():
        images = torch.randn(2, changes.get("in_chans", 3), *size)
        with torch.inference_mode():
            ours = model(images) if head else model.features(images).tokens
            for theirs in (reference, again):
                wanted = theirs(images) if head else theirs.forward_features(images)
                if wanted.ndim == 4:
                    wanted = wanted.flatten(1, 2) if swin else wanted.flatten(2).mT
                row[key] = max(row.get(key, 0.0), relative(ours, wanted))
    before, after = load_file(folder / "timm/model.safetensors"), load_file(folder / "back/model.safetensors")
    row["round_trip"] = before.keys() == after.keys() and all(
        torch.equal(before[key], after[key]) for key in before
    )
    return row


def write(timm: Any, name: str, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Our model there."""
    ours: Any = shaken(create_model(name, num_classes=3, **changes))
    size = ours.config.image_size
    write_bundle(
        folder / "bundle", ours, describe(ours, name="ours", labels=list("abc"), image=image_spec(size, 3))
    )
    export_timm(folder / "bundle", folder / "timm")
    theirs = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        return {
            "tesela": name,
            **changes,
            "relative": relative(theirs(images), ours(images)),
            "round_trip": True,
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timm", type=Path, required=True)
    parser.add_argument("--only", default="*", help="names to compare, such as convnext*")
    options = parser.parse_args()
    sys.path.append(str(options.timm))
    timm = import_timm()
    rows = []
    for compare, cases in ((read, THEIRS), (read_in_stages, IN_STAGES), (write, OURS)):
        for name, changes in cases:
            if not fnmatch.fnmatch(name, options.only):
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows.append(compare(timm, name, changes, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    worst = max(max(row["relative"], row.get("relative_resized", 0.0)) for row in rows)
    print(
        json.dumps(
            {"cases": len(rows), "worst": worst, "round_trips": all(row["round_trip"] for row in rows)}
        )
    )
    return 0 if worst <= 1e-5 and all(row["round_trip"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
