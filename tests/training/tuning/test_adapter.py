"""Adapters: the formula of the paper, merging, and the files, beside peft where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tesela.core.errors import ConfigError, WeightsError
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.lora import LoraDense, adapters, add_adapters, merge_adapters
from tesela.layers.lora_config import LoraConfig
from tesela.models.factory import create_model
from tesela.training.tuning.adapter import load_adapter, write_adapter


def make_model(**overrides: Any) -> Any:
    return create_model("vit_nano", num_classes=3, seed=0, width=16, depth=2, heads=2, **overrides).eval()


def stirred(model: torch.nn.Module, seed: int = 0) -> None:
    """Random values in the adapters and the head, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or name.startswith("head"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_the_forward_pass_is_the_papers_formula() -> None:
    """Reference: W x + b + (alpha / r) B A x in float64, equation 3.

    Gradients by autograd on that formula.
    """
    torch.manual_seed(0)
    layer = LoraDense(Dense(6, 5), LoraConfig(rank=2, alpha=3.0))
    layer.reset()
    stirred(layer)
    values = torch.randn(4, 7, 6)
    parts = [
        tensor.detach().double().requires_grad_()
        for tensor in (layer.base_weight, layer.bias, layer.lora_a, layer.lora_b)
    ]
    expected = values.double() @ parts[0].T + parts[1] + 1.5 * values.double() @ parts[2].T @ parts[3].T
    torch.testing.assert_close(layer(values).double(), expected, rtol=1e-5, atol=1e-5)
    (expected**2).sum().backward()
    (layer(values) ** 2).sum().backward()
    for mine, theirs in ((layer.lora_a, parts[2]), (layer.lora_b, parts[3])):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-3)  # type: ignore[union-attr]
    assert layer.base_weight.grad is None
    assert layer.bias.grad is None
    torch.testing.assert_close(
        layer.weight.double(), (parts[0] + 1.5 * parts[3] @ parts[2]), rtol=1e-5, atol=1e-5
    )


def test_an_adapted_network_begins_as_it_was_and_merging_changes_nothing() -> None:
    """Reference: the network without adapters; then the same with the weights summed by hand.

    Also the short way of the last block.
    """
    images = torch.randn(2, 1, 8, 8)
    model = make_model()
    stirred(model, 1)
    before, plain = model(images), model.state_dict()
    names = add_adapters(
        model, LoraConfig(rank=2, targets=("qkv", "mlp")), generator=torch.Generator().manual_seed(0)
    )
    assert names == [
        f"backbone.blocks.{i}.{part}"
        for i in (0, 1)
        for part in ("attention.qkv", "mlp.expand", "mlp.contract")
    ]
    assert torch.equal(model(images), before)
    assert plain.keys() < model.state_dict().keys()
    stirred(model)
    expected = {
        name: layer.base_weight + 8.0 * layer.lora_b @ layer.lora_a for name, layer in adapters(model)
    }
    adapted, whole = model(images), model.head(model.pooled(images))
    torch.testing.assert_close(adapted, whole, rtol=1e-4, atol=1e-4)
    merge_adapters(model)
    assert not list(adapters(model))
    assert model.state_dict().keys() == plain.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(model.state_dict()[f"{name}.weight"], weight)
    torch.testing.assert_close(model(images), adapted, rtol=1e-4, atol=1e-4)


def test_the_bf16_kernel_gives_what_the_plain_one_gives() -> None:
    """Training in bf16 on a CPU: logits and gradients of the adapters, beside fp32."""
    from tesela.layers.attention.attention import set_attention_kernel

    images = torch.randn(8, 1, 8, 8)
    found: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {}
    for kernel in ("fused", "cpu_bf16"):
        model = make_model().train()
        add_adapters(model, LoraConfig(rank=2), generator=torch.Generator().manual_seed(0))
        model.requires_grad_(False)
        for _, layer in adapters(model):
            layer.lora_a.requires_grad_(True)
            layer.lora_b.requires_grad_(True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_b") or name == "head.linear.weight":
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        set_attention_kernel(model, kernel)
        with torch.autocast("cpu", torch.bfloat16, enabled=kernel == "cpu_bf16"):
            logits = model(images)
        logits.float().square().sum().backward()
        found[kernel] = logits.detach().float(), {name: layer.lora_b.grad for name, layer in adapters(model)}
    torch.testing.assert_close(found["cpu_bf16"][0], found["fused"][0], rtol=0.05, atol=0.05)
    for name, gradient in found["fused"][1].items():
        difference = (found["cpu_bf16"][1][name] - gradient).norm() / gradient.norm()
        assert difference < 0.05, name


def test_files_have_pefts_layout_and_come_back(tmp_path: Path) -> None:
    """Reference: names, shapes and fields as peft documents them; logits after loading onto the base."""
    model = make_model()
    add_adapters(
        model, LoraConfig(rank=4, alpha=6.0, targets=("qkv",)), generator=torch.Generator().manual_seed(0)
    )
    stirred(model)
    write_adapter(tmp_path / "adapter", model, base="runs/base")
    tensors = safetensors.torch.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    prefix = "base_model.model.backbone.blocks.0.attention.qkv."
    assert tensors[f"{prefix}lora_A.weight"].shape == (4, 16)
    assert tensors[f"{prefix}lora_B.weight"].shape == (48, 4)
    assert {name.removeprefix("base_model.model.") for name in tensors if "lora" not in name} == {
        "head.linear.weight",
        "head.linear.bias",
    }
    tree = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (tree["peft_type"], tree["r"], tree["lora_alpha"], tree["modules_to_save"]) == (
        "LORA",
        4,
        6.0,
        ["head"],
    )
    assert tree["target_modules"] == ["backbone.blocks.0.attention.qkv", "backbone.blocks.1.attention.qkv"]
    base = create_model("vit_nano", num_classes=7, seed=0, width=16, depth=2, heads=2).eval()
    load_adapter(tmp_path / "adapter", base)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(base(images), model(images))


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    """Another width, another kind, a file that is cut off: each is named."""
    model = make_model()
    add_adapters(model, LoraConfig(rank=2))
    write_adapter(tmp_path / "adapter", model, base=None)
    with pytest.raises(WeightsError, match="do not fit the model"):
        load_adapter(
            tmp_path / "adapter", create_model("vit_nano", num_classes=3, seed=0, width=8, depth=2, heads=2)
        )
    with pytest.raises(WeightsError, match="do not fit the model"):
        load_adapter(
            tmp_path / "adapter", create_model("vit_nano", num_classes=3, seed=0, width=16, depth=3, heads=2)
        )
    config = tmp_path / "adapter" / "adapter_config.json"
    text = config.read_text()
    config.write_text(text.replace('"LORA"', '"IA3"'))
    with pytest.raises(WeightsError, match="no plain LoRA"):
        load_adapter(tmp_path / "adapter", make_model())
    config.write_text(text[:20])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_adapter(tmp_path / "adapter", make_model())


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}])
def test_senseless_values_are_refused(values: dict[str, Any]) -> None:
    """The field is named."""
    with pytest.raises(ConfigError, match=rf"lora\.{next(iter(values))}"):
        LoraConfig(**values)


PEFT = """
import sys, torch
from peft import PeftModel
from tesela.models.factory import create_model
from tesela.training.tuning.adapter import load_adapter
folder = sys.argv[1]
make = lambda: create_model("vit_nano", num_classes=3, seed=0, width=16, depth=2, heads=2).eval()
mine = make()
load_adapter(__import__("pathlib").Path(folder), mine)
theirs = PeftModel.from_pretrained(make(), folder).eval()
images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
inner = theirs.base_model.model
expected = inner.head(inner.pooled(images))
torch.testing.assert_close(theirs(images), expected)
assert float(expected.abs().max()) > 0.1
torch.testing.assert_close(mine(images), expected, rtol=1e-5, atol=1e-5)
back = folder + "-peft"
theirs.save_pretrained(back)
again = make()
load_adapter(__import__("pathlib").Path(back), again)
assert torch.equal(again(images), mine(images))
"""


def test_peft_loads_what_was_written_and_writes_what_is_loaded(tmp_path: Path) -> None:
    """Reference: peft's own forward pass on the same base; and the way back."""
    model = make_model()
    add_adapters(model, LoraConfig(rank=2), generator=torch.Generator().manual_seed(0))
    stirred(model)
    write_adapter(tmp_path / "adapter", model, base="base")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEFT, str(tmp_path / "adapter")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
