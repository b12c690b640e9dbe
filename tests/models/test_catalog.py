"""Names, published parameter counts, and what is refused with which hint."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tesela.core.errors import ConfigError, UnknownNameError
from tesela.models import catalog
from tesela.models.hybrid.config import HybridConfig
from tesela.models.vit.config import ViTConfig

# ViT at 224 px with 1000 classes: the counts of the published checkpoints (ViT-B/16 of the paper: 86 M).
IMAGENET = {
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_s32": 22_878_952,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "vit_l16": 304_326_632,
    "vit_h14": 632_045_800,
}

# CCT at 32 px with 10 classes: the count and the tenths of a million in Table 3 of arXiv 2104.05704.
COMPACT = {
    "cct_2_3x2_32": 283_723,
    "cct_4_3x2_32": 482_123,
    "cct_7_3x1_32": 3_760_139,
    "vit_lite7_p4": 3_722_250,
}


@pytest.mark.parametrize(("name", "count"), IMAGENET.items())
def test_published_counts_of_vit(name: str, count: int) -> None:
    assert catalog.find_model(name).config.parameter_count(1000) == count


@pytest.mark.parametrize(("name", "count"), COMPACT.items())
def test_counts_of_compact_models(name: str, count: int) -> None:
    assert catalog.find_model(name).config.parameter_count(10) == count


def test_cct_6_without_learned_positions_has_the_published_3_17_million() -> None:
    assert (
        catalog.resolve("cct_6_3x1_32", overrides={"position": "sincos2d"}).parameter_count(10) == 3_168_267
    )


def test_operations_of_the_papers_models() -> None:
    """ViT-B/16 and L/16 at 224 px: 17.6 and 61.6 billion multiply-adds, in every table since."""
    assert catalog.find_model("vit_b16").config.flops(1000) / 2e9 == pytest.approx(17.56, abs=0.01)
    assert catalog.find_model("vit_l16").config.flops(1000) / 2e9 == pytest.approx(61.55, abs=0.01)


def test_names() -> None:
    every = catalog.model_names()
    assert len(every) == len(set(every)) >= 80
    assert catalog.model_names("vit_s[0-9]*") == [f"vit_s{patch}" for patch in (4, 8, 14, 16, 32)]
    assert catalog.model_names("mnist_a") == ["vit_mnist_article", "vit_mnist_article_twin"]
    assert catalog.model_names("nothing like it") == []
    for family in catalog.family_names():
        assert {catalog.find_model(name).family for name in catalog.model_names(family)} == {family}
    assert {catalog.find_model(name).family for name in every} == set(catalog.family_names())


def test_a_half_b_has_half_of_every_width() -> None:
    half, whole = catalog.find_model("vit_bhalf16").config, catalog.find_model("vit_b16").config
    assert isinstance(half, ViTConfig) and isinstance(whole, ViTConfig)
    assert (2 * half.width, 2 * half.mlp_width, half.depth) == (whole.width, whole.mlp_width, whole.depth)
    assert 2 * half.width // half.heads == whole.width // whole.heads


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="vit_s61") as caught:
        catalog.find_model("vit_s61")
    assert "vit_s16" in caught.value.hint
    with pytest.raises(UnknownNameError):
        catalog.family("resnext")


def test_overrides() -> None:
    config = catalog.resolve(
        "vit_s16", image_size=96, channels=1, overrides={"depth": 3, "patch_size": "8x16", "pool": "mean"}
    )
    assert isinstance(config, ViTConfig)
    assert (config.image_size, config.patch_size, config.channels, config.depth, config.pool) == (
        (96, 96),
        (8, 16),
        1,
        3,
        "mean",
    )
    assert catalog.resolve("vit_s16", image_size=(32, 64)).grid() == (2, 4)


def test_lists_as_words() -> None:
    """Stages as the command line gives them; an empty word is no stage."""
    config = catalog.resolve("r50_vit_b16", overrides={"stages": "2,2", "patch_size": "2"})
    assert isinstance(config, HybridConfig) and (config.stages, config.patch_size, config.grid()) == (
        (2, 2),
        (2, 2),
        (14, 14),
    )
    config = catalog.resolve("r50_vit_b16", overrides={"stages": ""})
    assert isinstance(config, HybridConfig) and (config.stages, config.grid()) == ((), (56, 56))


@pytest.mark.parametrize(
    ("name", "image_size", "overrides", "message", "hint"),
    [
        ("vit_s16", None, {"dept": 3}, "unknown key 'dept'", "depth"),
        ("vit_s16", None, {"depth": "many"}, "depth must be a whole number", "whole number"),
        ("vit_s16", 30, {}, "patches of 16x16 do not divide an image of 30x30", "32x32"),
        ("vit_s16", (32, 40), {}, "do not divide an image of 32x40", "32x32"),
        ("vit_s16", None, {"heads": 5}, "width 384 is not divisible by 5 heads", "use 4 heads"),
        ("vit_s16", None, {"pool": "max"}, "pool cannot be 'max'", "did you mean mean"),
        ("vit_s16", None, {"position": "sincos2d", "width": 6}, "divisible by 4", "position"),
        (
            "vit_s16",
            None,
            {"pool": "mean", "distillation": True},
            "distillation token needs the class token",
            "pool=class",
        ),
        ("vit_s16", None, {"dropout": 1.5}, r"dropout must be in \[0, 1\)", "0.1"),
        ("vit_s16", None, {"depth": 0}, "depth must be at least 1", "positive"),
        ("vit_s16", None, {"patch_size": 0}, "patch_size", "pixels"),
        ("cct_2_3x2_32", None, {"tokenizer_stride": 0}, "tokenizer_stride must be at least 1", "positive"),
        ("cct_2_3x2_32", None, {"patch_size": 4}, "unknown key 'patch_size'", ""),
    ],
)
def test_what_is_refused(
    name: str, image_size: int | None, overrides: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        catalog.resolve(name, image_size=image_size, overrides=overrides)
    assert hint in caught.value.hint and caught.value.exit_code == 2


def test_no_classes() -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        catalog.resolve("vit_s16", num_classes=0)


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from tesela.models import bundle, catalog; "
        "[catalog.find_model(name).config.parameter_count(10) for name in catalog.model_names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
