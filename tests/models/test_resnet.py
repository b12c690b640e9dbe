"""Residual networks against transformers' (ResNet and BiT, weights copied) and against published parameter
counts."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from transformers import BitConfig, BitForImageClassification, ResNetForImageClassification
from transformers import ResNetConfig as TheirResNetConfig

from tesela.core.errors import ConfigError
from tesela.models import catalog
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model
from tesela.models.resnet.config import ResNetConfig
from tesela.models.tensors import load_weights

# 1000 classes. Plain: torchvision's published weights. BiT: the checkpoints published with arXiv 1912.11370;
# those of R50x2, R152x1 and R200x3, which were not published, as another implementation (timm 1.0) counts
# them.
COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "bit_r50x1": 25_549_352,
    "bit_r50x2": 97_988_712,
    "bit_r50x3": 217_319_080,
    "bit_r101x1": 44_541_480,
    "bit_r101x3": 387_934_888,
    "bit_r152x1": 60_185_128,
    "bit_r152x2": 236_335_208,
    "bit_r152x4": 936_533_224,
    "bit_r200x3": 568_633_000,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_counts(name: str, count: int) -> None:
    assert catalog.find_model(name).config.parameter_count(1000) == count


def test_counts_for_small_images() -> None:
    """arXiv 1512.03385, table 6: 0.27 M and 0.85 M.

    With convolutions on its two shortcuts, 2,752 more than the paper's option A.
    """
    counts = {
        name: catalog.find_model(name).config.parameter_count(10)
        for name in ("resnet20_small", "resnet56_small")
    }
    assert counts == {"resnet20_small": 269_722 + 2_752, "resnet56_small": 853_018 + 2_752}


def test_published_operations() -> None:
    """Multiply-adds at 224 px: 1.81, 4.09 and 11.51 billion in torchvision's table of weights."""
    products = {
        name: catalog.find_model(name).config.flops(1000) / 2e9
        for name in ("resnet18", "resnet50", "resnet152")
    }
    assert products == pytest.approx({"resnet18": 1.814, "resnet50": 4.089, "resnet152": 11.514}, abs=1e-3)


def filled(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model random and its running variances positive; returned by name."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim > 1 else 0.5)
                )
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return dict(model.eval().state_dict())


UNIT = r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)"
RESNET = {
    r"resnet\.embedder\.embedder\.convolution": "backbone.root.conv",
    r"resnet\.embedder\.embedder\.normalization": "backbone.root.norm",
    UNIT + r"\.layer\.(\d+)\.convolution": r"backbone.stages.\1.\2.conv+\3",
    UNIT + r"\.layer\.(\d+)\.normalization": r"backbone.stages.\1.\2.norm+\3",
    UNIT + r"\.shortcut\.convolution": r"backbone.stages.\1.\2.projection",
    UNIT + r"\.shortcut\.normalization": r"backbone.stages.\1.\2.projection_norm",
    r"classifier\.1": "head.linear",
}
BIT = {
    r"bit\.embedder\.convolution": "backbone.root.conv",
    r"bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(conv|norm)(\d)": r"backbone.stages.\1.\2.\3\4",
    r"bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.downsample\.conv": r"backbone.stages.\1.\2.projection",
    r"bit\.norm": "backbone.norm",
    r"classifier\.1": "head.linear",
}


def renamed(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        own = name
        for pattern, replacement in names.items():
            own = re.sub(f"^{pattern}(?=\\.[a-z_]+$)", replacement, own)
        found[re.sub(r"\+(\d)", lambda number: str(int(number[1]) + 1), own)] = tensor
    return found


def agree(model: Classifier, reference: nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = model.eval()(images), reference(images).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("size", [(64, 64), (57, 83)])
@pytest.mark.parametrize("unit", ["basic", "bottleneck"])
def test_plain_logits_are_those_of_transformers(unit: str, size: tuple[int, int]) -> None:
    expansion = 4 if unit == "bottleneck" else 1
    theirs = TheirResNetConfig(
        embedding_size=8,
        hidden_sizes=[8 * expansion, 16 * expansion],
        depths=[2, 3],
        layer_type=unit,
        num_labels=5,
    )
    reference = ResNetForImageClassification(theirs)
    model = create_model("resnet50", num_classes=5, unit=unit, stages=(2, 3), width_factor=0.125)
    load_weights(model, renamed(filled(reference), RESNET), source="transformers")
    agree(model, reference, size)


@pytest.mark.parametrize("size", [(64, 64), (57, 83)])
def test_bit_logits_are_those_of_transformers(size: tuple[int, int]) -> None:
    theirs = BitConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128], depths=[2, 1, 2], num_groups=4, num_labels=5
    )
    reference = BitForImageClassification(theirs)
    model = create_model("bit_r50x1", num_classes=5, stages=(2, 1, 2), width_factor=0.125, norm_groups=4)
    load_weights(model, renamed(filled(reference), BIT), source="transformers")
    agree(model, reference, size)


def test_a_new_plain_network_adds_nothing_to_its_shortcuts() -> None:
    """The last norm of each unit starts with scale zero.

    A unit without projection is the identity (of what a ReLU left).
    """
    unit = create_model("resnet18", seed=0).get_submodule("backbone.backbone.stages.1.1")
    images = torch.rand(2, 128, 5, 4)
    assert torch.equal(unit(images), images)


def test_batch_norm_trains_and_evaluates() -> None:
    """Running values move by a tenth of the way to the batch's; evaluation uses them and leaves them."""
    model = create_model("resnet20_small", seed=0, stages=(1,), width_factor=0.0625).train()
    images = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    model(images)
    norm, conv = (
        model.get_submodule("backbone.backbone.root.norm"),
        model.get_submodule("backbone.backbone.root.conv"),
    )
    with torch.no_grad():
        mean = conv(images).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()(images + 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_stochastic_depth_grows_linearly() -> None:
    body = create_model("resnet18_small", drop_path=0.3, stages=(2, 2), width_factor=0.125).get_submodule(
        "backbone.backbone.stages"
    )
    rates = [unit.drop_path.rate for stage in body.children() for unit in stage.children()]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_names() -> None:
    """The paper's baselines; R50x2 has twice the width of R50x1 in every place."""
    asked = ["bit_r50x1", "bit_r50x2", "bit_r101x1", "bit_r152x1", "bit_r152x2", "bit_r200x3", "bit_r152x4"]
    assert set(asked) <= set(catalog.model_names("bit_*"))
    one, two = catalog.find_model("bit_r50x1").config, catalog.find_model("bit_r50x2").config
    assert isinstance(one, ResNetConfig) and isinstance(two, ResNetConfig)
    assert (one.width, two.width, one.grid(), one.grid((225, 33))) == (2048, 4096, (7, 7), (8, 2))
    assert "3-4-6-3 bottleneck units" in one.summary() and "7x7 cells at 224 px" in one.summary()


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"stages": ()}, "at least one stage", "3,4,6,3"),
        ({"stages": (3, 0, 2)}, "a stage without units", "leave the stage out"),
        ({"width_factor": 0.3}, "32 groups do not divide 19 channels", "norm_groups=19"),
        ({"width_factor": 0.001}, "leaves no channel", "0.015625"),
        ({"norm_groups": 0}, "0 groups", "norm_groups=1"),
        ({"drop_path": 1.0}, "drop_path must be in", "0.1"),
        ({"channels": 0}, "channels must be at least 1", "positive"),
        ({"image_size": (0, 8)}, "image_size", "pixels"),
        ({"patch_size": 4}, "unknown key 'patch_size'", ""),
        ({"unit": "wide"}, "unit cannot be 'wide'", "bottleneck"),
    ],
)
def test_what_is_refused(overrides: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        catalog.resolve("bit_r50x1", overrides=overrides)
    assert hint in caught.value.hint
