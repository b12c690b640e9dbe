"""Are our logits timm's, with timm's weights? Square and other images, several sizes; and back again.

    python benchmarks/parity_timm.py --timm FOLDER

FOLDER holds timm and torchvision as in training_step.py. Weights are random but nowhere zero, so that every tensor matters. The limit
is 1e-5 relative to the largest logit, in fp32. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from training_step import import_timm

from tesela.models.factory import create_model
from tesela.weights.timm import vit_tensors, vit_to_timm

CASES = [
    ("vit_tiny_patch16_224", "vit_ti16", (224, 224)),
    ("vit_small_patch16_224", "vit_s16", (224, 224)),
    ("vit_small_patch16_224", "vit_s16", (160, 288)),
    ("vit_small_patch32_224", "vit_s32", (224, 224)),
    ("vit_base_patch16_224", "vit_b16", (224, 224)),
]


def compare(timm: Any, theirs: str, ours: str, size: tuple[int, int]) -> dict[str, Any]:
    """Largest difference of logits as a share of the largest logit, and whether the weights come back unchanged."""
    torch.manual_seed(0)
    reference = timm.create_model(theirs, num_classes=10, img_size=size).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    state = reference.state_dict()
    model = create_model(ours, num_classes=10, image_size=size).eval()
    model.load_state_dict(vit_tensors(state), strict=True)
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected, found = reference(images), model(images)
    back = vit_to_timm(model.state_dict())
    same = back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    relative = float((found - expected).abs().max() / expected.abs().max())
    return {"timm": theirs, "tesela": ours, "size": size, "relative": relative, "round_trip": same}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=Path, required=True)
    sys.path.append(str(parser.parse_args().timm))
    timm = import_timm()
    rows = [compare(timm, *case) for case in CASES]
    for row in rows:
        print(json.dumps(row))
    return 0 if all(row["relative"] <= 1e-5 and row["round_trip"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
