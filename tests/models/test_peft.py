"""peft on our models: its adapters on every dense layer, beside the same update merged into plain weights."""

from __future__ import annotations

import subprocess
import sys

import pytest

PEFT = """
import sys, torch
from peft import LoraConfig, get_peft_model
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.models.factory import create_model, create_segmenter

def make():
    if sys.argv[1] == "segformer_b0":
        model = create_segmenter("segformer_b0", num_classes=3, image_size=64, seed=0)
    else:
        position = sys.argv[1].partition(" ")[2] or "learned"
        model = create_model("vit_nano", num_classes=3, seed=0, width=16, depth=2, heads=2, position=position)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()

plain = make()
def adaptable(module):  # peft makes an adapter by calling the layer's own class
    return isinstance(module, torch.nn.Linear) or type(module) is torch.nn.Conv2d and module.groups == 1
names = [name for name, module in plain.named_modules() if adaptable(module)]
theirs = get_peft_model(make(), LoraConfig(r=2, lora_alpha=6, target_modules=names)).double().eval()
generator = torch.Generator().manual_seed(2)
with torch.no_grad():
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
for name in names:  # the formula of the paper: W + alpha / r B A
    layer, target = theirs.base_model.model.get_submodule(name), plain.get_submodule(name)
    with torch.no_grad():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        target.weight.add_(3.0 * (b.flatten(1) @ a.flatten(1)).view_as(target.weight))
side = plain.config.image_size
images = torch.randn(2, plain.config.channels, *side, generator=generator).double()
expected, found, before = plain(images), theirs(images), make()(images)
largest = float(expected.detach().abs().max())
assert float((expected - before).detach().abs().max()) > 0.02 * largest
assert float((found - expected).detach().abs().max()) <= 1e-6 * largest
found.square().sum().backward()
expected.square().sum().backward()
for name in names:  # the chain rule: dA = s Bt dW, dB = s dW At
    layer, gradient = theirs.base_model.model.get_submodule(name), plain.get_submodule(name).weight.grad
    gradient = gradient.flatten(1)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    for part, wanted in ((a, 3.0 * b.flatten(1).T @ gradient), (b, 3.0 * gradient @ a.flatten(1).T)):
        assert part.grad is not None and float(part.grad.abs().max()) > 0, name
        close = 1e-6 * float(wanted.detach().abs().max())
        torch.testing.assert_close(part.grad.flatten(1), wanted.detach(), rtol=1e-6, atol=close)
print(len(names))
"""


@pytest.mark.parametrize(
    ("kind", "layers"), [("vit", 9), ("vit rotary", 9), ("vit relative", 9), ("segformer_b0", 55)]
)
def test_adapters_of_peft(kind: str, layers: int) -> None:
    """Logits to 1e-6, and the gradient of every adapter as the chain rule has it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEFT, kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == layers
