"""Defaults for photographs: what is filled in, what turns it off, and where it is written down."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.checkpoints.test_hub import FIRST, store
from tests.parity.huggingface_models import saved

import tesela as ts
from tesela.cli.main import run as tesela
from tesela.core.config import read_yaml
from tesela.models import catalog
from tesela.models.pretrained import PRETRAINED, find_pretrained
from tesela.runs.folder import Run
from tesela.training.config import layered
from tesela.training.run import train

SHORT: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 8,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "tensorboard": False,
    "report": False,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured images of many sizes, two classes."""
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for channel, name in ((0, "red"), (1, "green")):
        (root / name).mkdir()
        for number in range(20):
            image = generator.integers(0, 90, (*generator.integers(100, 130, 2), 3)).astype(np.uint8)
            image[..., channel] += 90
            Image.fromarray(image).save(root / name / f"{number}.jpg")
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of a machine without a network, empty."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def trained(photographs: Path, tmp_path: Path, cache: Path) -> Callable[..., tuple[Run, str]]:
    """Train on the photographs; the run, and what was shown."""
    del cache

    def make(name: str, **options: Any) -> tuple[Run, str]:
        text = io.StringIO()
        out = str(tmp_path / name)
        settings = layered(SHORT, {"data.source": str(photographs), "out": out}, options)
        train(settings, console=Console(file=text, width=300))
        return Run(out), text.getvalue()

    return make


def test_photographs_are_flipped_cropped_and_recoloured(trained: Callable[..., tuple[Run, str]]) -> None:
    """The configuration says what was filled in, so that a replay does the same."""
    run, shown = trained("run", image_size=32)
    augment = read_yaml(run.config)["augment"]
    assert augment["hflip"] == 0.5 and augment["random_resized_crop"] and augment["color_jitter"] == 0.3
    assert "flips, crops and colours" in shown
    assert "from scratch, so 32 images will teach it little" in shown and "dinov2_s14" in shown


@pytest.mark.parametrize(
    "options",
    [{"augment.preset": "none"}, {"augment.vflip": 0.5}, {"recipe": "finetune", "model": "vit_nano"}],
)
def test_any_choice_turns_the_augmentation_off(
    options: dict[str, Any], trained: Callable[..., tuple[Run, str]]
) -> None:
    run, shown = trained("run", image_size=32, **options)
    assert read_yaml(run.config)["augment"]["color_jitter"] == 0 and "flips, crops" not in shown


def test_small_or_grey_images_are_left_as_they_are(tmp_path: Path) -> None:
    train(layered(SHORT, {"data.source": "digits", "data.subset": 40, "out": str(tmp_path / "run")}))
    assert not read_yaml(tmp_path / "run" / "config.yaml")["augment"]["hflip"]


def test_a_cached_pre_trained_model_is_the_start(
    cache: Path, tmp_path: Path, trained: Callable[..., tuple[Run, str]]
) -> None:
    """The first of the list, by its name on the hub; ``--from scratch`` and any model are choices."""
    theirs = saved("dinov2", tmp_path / "tiny")
    store(cache, PRETRAINED[0].repository, FIRST, tmp_path / "tiny")
    run, shown = trained("run", image_size=24)
    config = read_yaml(run.config)
    assert config["from_"] == PRETRAINED[0].source
    assert config["optim"]["layer_decay"] == 0.75 and config["optim"]["lr"] == 3e-4
    assert "from the pre-trained dinov2_s14" in shown
    info = json.loads((run.bundle / "config.json").read_text())
    assert info["provenance"]["from"] == PRETRAINED[0].source
    alias = ts.load(PRETRAINED[0].alias)
    name = "embeddings.patch_embeddings.projection.bias"
    assert torch.equal(alias.state_dict()["patches.bias"], theirs.state_dict()[f"dinov2.{name}"])
    run, shown = trained("scratch", image_size=32, **{"from": "scratch"})
    assert read_yaml(run.config)["from_"] == "scratch" and "pre-trained" not in shown
    run, _ = trained("named", image_size=32, model="vit_nano")
    assert read_yaml(run.config)["from_"] is None


@pytest.mark.parametrize("name", ["swin_tiny", "swin_base", "convnext_tiny", "convnext_base"])
def test_numbers_of_pyramids_are_those_of_their_sizes(name: str) -> None:
    """Reference: the arithmetic of the family, with the classes of ImageNet."""
    row, entry = find_pretrained(f"{name}_1k"), catalog.find_model(name)
    assert row is not None and row.parameters == entry.parameter_count(entry.config, 1000)
    assert row.gflops == pytest.approx(entry.flops(entry.config, 1000) / 1e9, abs=0.06)


def test_the_list_of_pre_trained_models(capfd: pytest.CaptureFixture[str]) -> None:
    """Every row has a licence, a size that follows from its weights, and a name that ``--from`` takes."""
    assert tesela(["models", "--pretrained", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out.splitlines()[-1])["pretrained"]
    assert len(rows) == len(PRETRAINED) == len({row["alias"] for row in rows})
    assert all(row["bytes"] == 4 * row["parameters"] > 1e7 and row["license"] for row in rows)
    assert [row["alias"] for row in rows if row["gated"]] == ["dinov3_s16", "dinov3_b16", "dinov3_l16"]
    assert all(row["gflops"] > 1 for row in rows)
    assert tesela(["models", "dinov2_b", "--pretrained", "--json"]) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])["pretrained"]
    assert [row["alias"] for row in found] == ["dinov2_b14"]
    assert tesela(["models", "nothing", "--pretrained"]) == 2
