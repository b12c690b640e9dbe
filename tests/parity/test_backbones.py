"""Backbones of transformers through files: DINOv3, SigLIP, CLIP, MAE, MSN, I-JEPA, BEiT, AIMv2.
others.

Logits, or what a bare body is pooled to, to 1e-5 at the model's size and at two others that are not
square; the attention of the last block; bytes of every tensor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.parity.backbone_models import BACKBONE_MODELS, outputs, saved
from tests.parity.huggingface_models import close

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.layers.trace import Trace
from tesela.models.bundle import write_bundle

#: AIMv2 of transformers has positions for its own size alone.
SIZES = [(24, 24), (24, 40), (56, 16)]


@pytest.mark.parametrize("name", BACKBONE_MODELS)
def test_we_compute_what_transformers_computes(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path / "hf")
    ours: Any
    ours, info = open_model(tmp_path / "hf")
    headed = "ForImageClassification" in BACKBONE_MODELS[name][0]
    assert info.provenance["source"]["head"] is headed and info.num_classes == (5 if headed else 1)
    for size in SIZES[:1] if name == "aimv2" else SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            found = ours(images) if headed else ours.pooled(images, trace=Trace())
        close(found, outputs(theirs, images))


@pytest.mark.parametrize("name", BACKBONE_MODELS)
def test_round_trip_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    """What belongs to the image encoder comes back as it was; transformers loads it without a word."""
    theirs = saved(name, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    report = export_huggingface(tmp_path / "bundle", tmp_path / "back")
    before, after = (load_file(tmp_path / f"{one}/model.safetensors") for one in ("hf", "back"))
    if name.endswith("whole"):
        kept = ("vision_model.", "visual_projection.")
        before = {key: tensor for key, tensor in before.items() if key.startswith(kept)}
    if name.startswith("msn-"):
        before = {
            key if key.startswith(("vit.", "classifier")) else f"vit.{key}": one
            for key, one in before.items()
        }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
    kind = getattr(transformers, report.architecture)
    again, told = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told[word] for word in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = torch.randn(1, 3, 24, 24)
    close(outputs(again.eval(), images), outputs(theirs, images))


@pytest.mark.parametrize("name", ["dinov3", "siglip", "clip", "beit", "msn", "ijepa", "pixio"])
def test_attention_is_captured_as_it_is_computed_there(name: str, tmp_path: Path) -> None:
    """Reference: the attention that transformers returns, in every block, on an image that is not square."""
    theirs = saved(name, tmp_path / "hf", attn_implementation="eager")
    ours: Any
    ours, _ = open_model(tmp_path / "hf")
    images, trace = torch.randn(2, 3, 24, 40), Trace()
    more = {} if name in ("dinov3", "pixio") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        ours(images, trace=trace)
        wanted = theirs(images, output_attentions=True, **more).attentions
    found = [record.dense() for key, record in trace.attentions.items() if key.startswith("block")]
    assert len(found) == len(wanted) == 2
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["dinov3", "siglip", "siglip-14-of-24", "clip", "clip-classifier", "beit-classifier", "msn-classifier"],
)
def test_they_go_to_timm_too(name: str, tmp_path: Path) -> None:
    """Under the names of its Eva, VisionTransformer or Beit, from which the same outputs are read again."""
    theirs = saved(name, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "bundle")
    export_timm(tmp_path / "bundle", tmp_path / "timm")
    ours: Any
    ours, _ = open_model(tmp_path / "timm")
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        found = ours(images) if "classifier" in name else ours.pooled(images, trace=Trace())
    close(found, outputs(theirs, images))


def test_several_class_tokens_go_back_to_their_own_class_alone(tmp_path: Path) -> None:
    """Trained further, so that there is a classifier, for which transformers has no class."""
    saved("pixio", tmp_path / "hf")
    with pytest.raises(WeightsError, match="no class_tokens=3"):
        export_timm(tmp_path / "hf", tmp_path / "timm")
    model: Any
    model, info = open_model(tmp_path / "hf", num_classes=5)
    torch.nn.init.normal_(model.head.linear.weight)
    write_bundle(tmp_path / "b", model, info)
    with pytest.raises(WeightsError, match="no classifier that reads a PixioModel") as caught:
        export_huggingface(tmp_path / "b", tmp_path / "back")
    assert caught.value.hint


def test_what_a_config_states_is_computed_or_refused(tmp_path: Path) -> None:
    for name, changed, named in (
        ("beit", {"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias"),
        ("dinov3", {"use_gated_mlp": True}, "gated MLP with the activation 'gelu'"),
        ("dinov3", {"num_hidden_layers": 3}, "missing: layer.2"),
        ("clip", {"hidden_act": "mish"}, "'mish'"),
        ("clip", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("siglip", {"vision_config": {"quantization_config": {"bits": 4}}}, "quantization_config"),
        ("clip", {"architectures": ["CLIPTextModel"]}, "a text encoder, which sees no images"),
        ("siglip", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model'"),
        ("aimv2", {"is_native": True}, "is_native=True"),
        ("pixio", {"n_cls_tokens": 4}, "of another shape: embeddings.cls_token"),
        ("pixio", {"mlp_ratio": 3}, "of another shape"),
        ("msn", {"hidden_size": "wide"}, "does not make sense"),
    ):
        saved(name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(WeightsError, match=named) as caught:
            open_model(tmp_path / name)
        assert caught.value.hint


def test_a_text_encoder_alone_is_refused_as_such(tmp_path: Path) -> None:
    saved("clip-whole", tmp_path / "m")
    file = tmp_path / "m/model.safetensors"
    text = {key: tensor for key, tensor in load_file(file).items() if key.startswith("text_model.")}
    save_file(text, file)
    with pytest.raises(WeightsError, match=r"no image encoder of CLIPModel.*there is a text encoder"):
        open_model(tmp_path / "m")


@pytest.mark.parametrize("mark", [".absmax", ".SCB", ".quant_state.bitsandbytes__nf4", ".weight_scale"])
def test_quantised_weights_are_refused_as_such(mark: str, tmp_path: Path) -> None:
    saved("siglip", tmp_path / "m")
    file = tmp_path / "m/model.safetensors"
    save_file({**load_file(file), f"encoder.layers.0.mlp.fc1{mark}": torch.ones(8)}, file)
    with pytest.raises(WeightsError, match="holds quantised weights") as caught:
        open_model(tmp_path / "m")
    assert "float32" in caught.value.hint


def test_whole_weights_in_eight_bits_and_gguf_are_refused_as_such(tmp_path: Path) -> None:
    saved("clip", tmp_path / "m")
    file = tmp_path / "m/model.safetensors"
    tensors = load_file(file)
    name = "encoder.layers.0.mlp.fc1.weight"
    save_file({**tensors, name: torch.zeros(tensors[name].shape, dtype=torch.int8)}, file)
    with pytest.raises(WeightsError, match="holds quantised weights"):
        open_model(tmp_path / "m")
    save_file({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, file)
    with pytest.raises(WeightsError, match="holds quantised weights"):
        open_model(tmp_path / "m")
    file.rename(tmp_path / "m/model-q4.gguf")
    with pytest.raises(WeightsError, match=r"quantised weights alone \(GGUF\)"):
        open_model(tmp_path / "m")
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(WeightsError, match="GGUF"):
        open_model(tmp_path / "m.gguf")


def test_half_of_a_sharded_checkpoint_is_refused(tmp_path: Path) -> None:
    saved("dinov3", tmp_path / "one").save_pretrained(tmp_path / "m", max_shard_size="60KB")
    sorted((tmp_path / "m").glob("*.safetensors"))[-1].unlink()
    with pytest.raises(WeightsError, match=r"no file .*-of-") as caught:
        open_model(tmp_path / "m")
    assert "all its files" in caught.value.hint
    (tmp_path / "m/model.safetensors.index.json").unlink()
    with pytest.raises(WeightsError, match=r"in parts \(model-00001-of-.*without the index") as caught:
        open_model(tmp_path / "m")
    assert "all its files" in caught.value.hint
