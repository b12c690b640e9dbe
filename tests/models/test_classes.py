"""Heads of other classes: what a trained head knows of a class goes with its name, in any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tesela.core.config import to_mapping
from tesela.models import catalog
from tesela.models.factory import create_model, create_segmenter
from tesela.models.model import Model
from tesela.tasks.catalog import find_task
from tesela.tasks.task import head_text, known_places

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
KNOWN = ["a", "b", "c", "d"]
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("vit_lite7_p4", {}),
    "mlp": ("vit_lite7_p4", {"head": "mlp", "head_width": 12}),
    "class and mean": ("vit_lite7_p4", {"pool": "class_mean"}),
    "two heads": ("deit_ti16", {"patch_size": (4, 4)}),
    "resnet": ("resnet18_small", {}),
}
DECODERS: dict[str, dict[str, Any]] = {
    "linear decoder": {"name": "linear"},
    "patch decoder": {"name": "patch"},
    "patch decoder with a hidden layer": {"name": "patch", "hidden": 12},
    "light decoder": {"name": "light", "width": 6},
    "decoder of SegFormer": {"name": "mlp", "width": 6},
}


def trained(name: str) -> Model:
    """A classifier or segmenter of four classes in which no weight is zero."""
    model: Model
    if name in CLASSIFIERS:
        family, options = CLASSIFIERS[name]
        small = {"width": 32, "depth": 1, "heads": 2} if "resnet" not in family else {}
        model = create_model(family, num_classes=4, image_size=16, channels=3, seed=0, **small, **options)
    else:
        made = "segformer_b0" if DECODERS[name]["name"] == "mlp" else "vit_lite7_p4"
        config = to_mapping(catalog.find_model(made).config.tiny())
        keep = {"image_size": (16, 16) if made == "vit_lite7_p4" else (32, 32)}
        fields = {key: value for key, value in config.items() if key not in ("image_size", "channels")}
        model = create_segmenter(
            made, num_classes=4, decoder=DECODERS[name], channels=3, seed=0, **keep, **fields
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def outputs(model: Model) -> Tensor:
    images = IMAGES if model.config.image_size == (16, 16) else IMAGES.repeat(1, 1, 2, 2)
    with torch.no_grad():
        found: Tensor = model(images)
    return found


@pytest.mark.parametrize("name", [*CLASSIFIERS, *DECODERS])
@pytest.mark.parametrize("labels", ["dbca", "ca", "ebfda", "cb"])
def test_the_logits_of_a_known_class_stay(name: str, labels: str) -> None:
    model = trained(name)
    before = outputs(model)
    task = find_task("classify" if name in CLASSIFIERS else "segment")
    adapted = task.adapt(model, list(labels), KNOWN, seed=1).eval()
    assert adapted is model and model.num_classes == len(labels)
    after = outputs(adapted)
    for place, label in enumerate(labels):
        if label in KNOWN:
            torch.testing.assert_close(after[:, place], before[:, KNOWN.index(label)])
        elif model.kind == "classifier":
            assert not after[:, place].any()  # a new class begins at zero
        else:
            assert after[:, place].isfinite().all()
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_other_names_get_a_new_head() -> None:
    model = trained("linear")
    adapted = find_task("classify").adapt(model, ["x", "y"], KNOWN, seed=1)
    assert adapted.num_classes == 2 and not outputs(adapted).any()
    same = trained("linear")
    before = outputs(same)
    assert torch.equal(outputs(find_task("classify").adapt(same, KNOWN, KNOWN, seed=1)), before)


def test_a_segmenter_of_other_classes_gets_a_new_decoder() -> None:
    model = trained("light decoder")
    adapted = find_task("segment").adapt(model, ["x", "y"], KNOWN, seed=1)
    assert adapted is not model and adapted.backbone is model.backbone and adapted.num_classes == 2


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ("abcd", "kept"),
        ("dcba", "kept, in the order of the data's classes"),
        ("ca", "kept for 2 of the model's 4 classes; left out: b, d"),
        ("abcdef", "kept for 4 of the model's 4 classes; new: e, f"),
        ("aef", "kept for 1 of the model's 4 classes; new: e, f; left out: b, c, d"),
        ("xy", "new: the model knows none of the data's classes by name"),
    ],
)
def test_what_the_plan_says_of_the_head(labels: str, text: str) -> None:
    assert head_text(list(labels), KNOWN, kept=True) == text
    assert head_text(list(labels), KNOWN, kept=False) == "new"
    assert known_places(list(labels), KNOWN) == [KNOWN.index(one) if one in KNOWN else None for one in labels]
