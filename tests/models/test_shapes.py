"""The table of steps: shapes worked out by hand, parameters that add up to the closed form."""

from __future__ import annotations

import pytest

from tesela.models import catalog
from tesela.models.shapes import step_shapes


def test_vit_b16_by_hand() -> None:
    steps = {step.name: step for step in step_shapes(catalog.find_model("vit_b16").config, num_classes=1000)}
    expected = {
        "images": ((1, 3, 224, 224), 0),
        "patches": ((1, 196, 768), 768 * 769),
        "prefix": ((1, 197, 768), 768),
        "positions": ((1, 197, 768), 197 * 768),
        "block11.norm1": ((1, 197, 768), 2 * 768),
        "block11.attention.qkv": ((1, 3, 12, 197, 64), 3 * 768 * 769),
        "block11.attention.map": ((1, 12, 197, 197), 0),
        "block11.attention": ((1, 197, 768), 768 * 769),
        "block11.norm2": ((1, 197, 768), 2 * 768),
        "block11.mlp": ((1, 197, 768), 768 * 3072 * 2 + 3072 + 768),
        "block11": ((1, 197, 768), 0),
        "norm": ((1, 197, 768), 2 * 768),
        "pool": ((1, 768), 0),
        "head": ((1, 1000), 769_000),
    }
    assert {name: (steps[name].shape, steps[name].parameters) for name in expected} == expected
    assert (
        list(steps)[:5] == ["images", "patches", "prefix", "positions", "block00.norm1"]
        and list(steps)[-1] == "head"
    )


@pytest.mark.parametrize(
    "name",
    [
        "vit_ti32",
        "vit_mnist_article",
        "cct_7_3x2_32",
        "cvt7_p4",
        "deit_ti16",
        "r50_vit_b16",
        "r_vit_ti16",
        "resnet18",
        "bit_r50x1",
        "resnet20_small",
    ],
)
def test_parameters_add_up(name: str) -> None:
    config = catalog.find_model(name).config
    assert sum(step.parameters for step in step_shapes(config, num_classes=10)) == config.parameter_count(10)


def test_resnet50_by_hand() -> None:
    """Table 1 of arXiv 1512.03385: the sizes of the stages' outputs.

    Root, first unit and head counted out.
    """
    steps = {step.name: step for step in step_shapes(catalog.find_model("resnet50").config, num_classes=1000)}
    expected = {
        "backbone.root": ((1, 64, 56, 56), 3 * 64 * 49 + 2 * 64),
        "backbone.stages.0.0": (
            (1, 256, 56, 56),
            64 * 64 + 9 * 64 * 64 + 2 * 64 * 256 + 2 * (64 + 64 + 256 + 256),
        ),
        "backbone.stages.1.3": ((1, 512, 28, 28), 2 * 512 * 128 + 9 * 128 * 128 + 2 * (128 + 128 + 512)),
        "backbone.stages.2.5": ((1, 1024, 14, 14), 2 * 1024 * 256 + 9 * 256 * 256 + 2 * (256 + 256 + 1024)),
        "backbone.stages.3.2": ((1, 2048, 7, 7), 2 * 2048 * 512 + 9 * 512 * 512 + 2 * (512 + 512 + 2048)),
        "pool": ((1, 2048), 0),
        "head": ((1, 1000), 2049 * 1000),
    }
    assert {name: (steps[name].shape, steps[name].parameters) for name in expected} == expected
    assert len(steps) == 1 + 1 + 16 + 2


def test_options_have_their_steps_and_other_sizes_their_shapes() -> None:
    config = catalog.resolve(
        "vit_nano", overrides={"pool": "attention", "registers": 2, "head": "mlp", "depth": 1}
    )
    steps = {step.name: step.shape for step in step_shapes(config, num_classes=3, image_size=(8, 12))}
    assert (
        steps["pool.attention.map"] == (1, 4, 1, 26)
        and steps["head.hidden"] == (1, 64)
        and steps["block00"] == (1, 26, 64)
    )
    assert sum(step.parameters for step in step_shapes(config, num_classes=3)) == config.parameter_count(3)
