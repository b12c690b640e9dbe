"""SegFormer against transformers, through files, in both directions, at sizes that are not square."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from tests.parity.huggingface_models import close

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model, create_segmenter

SIZES = [(128, 128), (64, 160), (97, 131)]
TINY = {
    "hidden_sizes": [8, 16, 20, 32],
    "depths": [1, 2, 1, 1],
    "decoder_hidden_size": 24,
    "mlp_ratios": [4, 4, 2, 3],
    "num_labels": 5,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("SegformerForSemanticSegmentation", TINY),
    "b0": ("SegformerForSemanticSegmentation", {"num_labels": 7}),
    "classifier": ("SegformerForImageClassification", TINY),
    "bare": ("SegformerModel", TINY),
}


def saved(name: str, folder: Path) -> Any:
    """A model in which no tensor is zero, with running statistics of its own."""
    kind, fields = KINDS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.SegformerConfig(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for part, buffer in model.named_buffers():
            if "running" in part:
                buffer.add_(torch.rand_like(buffer) * 0.5)
    model.save_pretrained(folder)
    return model


def expected(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits; those of masks upsampled to the images' size, as transformers does for its loss."""
    with torch.no_grad():
        found = model(images)
    if not hasattr(found, "logits"):
        tokens: torch.Tensor = found.last_hidden_state.flatten(2).transpose(1, 2)
        return tokens
    logits: torch.Tensor = found.logits
    if logits.ndim == 2:
        return logits
    return F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("name", KINDS)
def test_we_compute_what_transformers_computes(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "hf")
    ours: Any
    ours, info = open_model(tmp_path / "hf")
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            found = ours.features(images).tokens if name == "bare" else ours(images)
        close(found, expected(theirs, images))
    assert info.task == ("segment" if name in ("tiny", "b0") else "classify")
    assert info.image.size == (512, 512) and info.image.resize == "squash"


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    report = export_huggingface(tmp_path / "bundle", tmp_path / "back")
    before, after = (load_file(tmp_path / f"{place}/model.safetensors") for place in ("hf", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
    assert report.architecture == type(theirs).__name__
    again, told = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = torch.randn(1, 3, 64, 96)
    close(expected(again.eval(), images), expected(theirs, images))


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_transformers_computes_what_we_trained(task: str, tmp_path: Path) -> None:
    """Bundles of our own, which never were anywhere else; the preprocessing goes with them."""
    fields: dict[str, Any] = {"widths": (8, 16, 24, 32), "heads": (1, 2, 3, 4), "image_size": (64, 96)}
    ours: Any = (
        create_segmenter("segformer_b0", num_classes=3, seed=1, **fields)
        if task == "segment"
        else create_model("segformer_b0", num_classes=3, seed=1, **fields)
    )
    ours.eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    info = describe(ours, name="mine", labels=["a", "b", "c"], image=image_spec((64, 96), 3), task=task)
    write_bundle(tmp_path / "bundle", ours, info)
    report = export_huggingface(tmp_path / "bundle", tmp_path / "hf")
    theirs, told = getattr(transformers, report.architecture).from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(told[word] for word in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        close(ours(images), expected(theirs.eval(), images))
    spec = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert spec["size"] == {"height": 64, "width": 96} and spec["image_mean"] == [0.5, 0.5, 0.5]


def test_another_decoder_has_no_place_there(tmp_path: Path) -> None:
    ours = create_segmenter("segformer_b0", num_classes=3, decoder="light", image_size=64, seed=1)
    info = describe(ours, name="mine", labels=["a", "b", "c"], image=image_spec((64, 64), 3), task="segment")
    write_bundle(tmp_path / "bundle", ours, info)
    with pytest.raises(WeightsError, match="decoder 'light'"):
        export_huggingface(tmp_path / "bundle", tmp_path / "hf")


def test_images_are_seen_whole(tmp_path: Path) -> None:
    """A preprocessor that would cut the borders off is taken as one that squashes, and a remark says so."""
    saved("tiny", tmp_path / "hf")
    spec = {
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "image_processor_type": "SegformerImageProcessor",
    }
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(spec))
    report = convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    _, info = open_model(tmp_path / "bundle")
    assert (info.image.resize, info.image.size) == ("squash", (64, 64))
    assert any("squashed" in remark for remark in report.remarks)
