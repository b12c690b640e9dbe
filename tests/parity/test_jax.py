"""Logits of the paper's JAX code.

Its golden values to 1e-5, and networks of every other kind against ``jax_reference``; and back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.jax_reference import logits, random_arrays

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.jax.write import export_jax
from tesela.checkpoints.open import open_model
from tesela.cli.main import run
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

GOLDEN = ("vit_token", "vit_representation", "hybrid_two_stage")

#: What is made, and the size of an image.
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "token": ({"grid": (4, 4)}, (32, 32)),
    "published names": ({"grid": (3, 3), "published": True, "representation": 24}, (24, 24)),
    "gap": ({"grid": (4, 4), "token": False}, (32, 32)),
    "gap, pre-logits": ({"grid": (3, 3), "token": False, "representation": 20}, (24, 24)),
    "oblong patches": ({"grid": (4, 4), "patch": (4, 8)}, (16, 32)),
    "oblong grid": ({"grid": (2, 6), "patch": (8, 4)}, (16, 24)),
    "oblong grid, gap": ({"grid": (5, 3), "token": False}, (40, 24)),
    "grey": ({"grid": (4, 4), "channels": 1, "patch": (7, 7)}, (28, 28)),
    "no positions": ({"grid": (4, 4), "positions": False}, (32, 32)),
    "root alone": ({"grid": (4, 4), "stages": (), "patch": (2, 2)}, (32, 32)),
    "one stage": ({"grid": (6, 6), "stages": (2,), "patch": (1, 1)}, (24, 24)),
    "three stages": ({"grid": (3, 3), "stages": (1, 2, 1), "patch": (1, 1), "token": False}, (48, 48)),
    "four stages, oblong": ({"grid": (2, 3), "stages": (1, 1, 1, 1), "patch": (1, 1)}, (64, 96)),
    "wider, patches of the map": (
        {"grid": (2, 4), "stages": (1, 1), "patch": (2, 1), "factor": 1.0, "representation": 16},
        (32, 32),
    ),
}


def saved(name: str, folder: Path) -> tuple[Path, dict[str, np.ndarray], tuple[int, int]]:
    made, size = NETWORKS[name]
    arrays = random_arrays(**made)
    np.savez(folder / "model.npz", **arrays)  # type: ignore[arg-type]
    return folder / "model.npz", arrays, size


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(abs(theirs).max()))


def ours(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(shared: Path, name: str) -> None:
    golden = np.load(shared / f"golden/jax/{name}.io.npz")
    model, _ = open_model(shared / f"golden/jax/{name}.npz")
    close(ours(model, golden["images_nhwc"]), golden["logits"])


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_gives_the_golden_values(shared: Path, name: str) -> None:
    golden = np.load(shared / f"golden/jax/{name}.io.npz")
    close(logits(dict(np.load(shared / f"golden/jax/{name}.npz")), golden["images_nhwc"]), golden["logits"])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name: str, tmp_path: Path) -> None:
    path, arrays, size = saved(name, tmp_path)
    images = np.random.default_rng(1).normal(size=(2, *size, arrays_channels(arrays))).astype(np.float32)
    model, _ = open_model(path, image_size=size)
    close(ours(model, images), logits(arrays, images))


def arrays_channels(arrays: dict[str, np.ndarray]) -> int:
    return int(arrays.get("conv_root/kernel", arrays["embedding/kernel"]).shape[2])


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip_gives_identical_arrays(name: str, tmp_path: Path) -> None:
    path, arrays, size = saved(name, tmp_path)
    convert_checkpoint(path, tmp_path / "bundle", image_size=size)
    export_jax(tmp_path / "bundle", tmp_path / "back")
    back = dict(np.load(tmp_path / "back/model.npz"))
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype and np.array_equal(back[key], array), key


@pytest.mark.parametrize("name", GOLDEN)
def test_round_trip_of_the_golden_files(shared: Path, name: str, tmp_path: Path) -> None:
    source = shared / f"golden/jax/{name}.npz"
    assert run(["convert", str(source), str(tmp_path / "bundle")]) == 0
    assert run(["export", str(tmp_path / "bundle"), "--to", "jax", "--out", str(tmp_path / "back")]) == 0
    back, arrays = dict(np.load(tmp_path / "back/model.npz")), dict(np.load(source))
    assert back.keys() == arrays.keys() and all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_halves_prefixes_and_missing_heads(tmp_path: Path) -> None:
    arrays = {
        f"opt/target/{name}": array.astype(np.float16)
        for name, array in random_arrays(grid=(2, 2), classes=0).items()
    }
    np.savez_compressed(tmp_path / "model.npz", **arrays)  # type: ignore[arg-type]
    opened = convert_checkpoint(tmp_path / "model.npz", tmp_path / "bundle")
    assert any("no classifier" in remark for remark in opened.remarks)
    export_jax(tmp_path / "bundle", tmp_path / "back")
    back = dict(np.load(tmp_path / "back/model.npz"))
    assert back.keys() == arrays.keys()
    assert all(back[key].dtype == np.float16 and np.array_equal(back[key], arrays[key]) for key in arrays)


def test_what_we_trained_goes_there(tmp_path: Path) -> None:
    """A hybrid of our own, computed by the reference from the file alone."""
    size = (32, 64)
    model: Any = create_model(
        "r26_vit_s16",
        num_classes=4,
        seed=0,
        image_size=size,
        stages=(1, 1),
        width_factor=0.5,
        width=32,
        heads=2,
        depth=1,
        activation="gelu_tanh",
        pool="mean",
    ).eval()
    with torch.no_grad():
        model.head.linear.weight.normal_()
    write_bundle(
        tmp_path / "bundle",
        model,
        describe(model, name="mine", labels=list("abcd"), image=image_spec(size, 3)),
    )
    export_jax(tmp_path / "bundle", tmp_path / "jax")
    images = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    close(ours(model, images), logits(dict(np.load(tmp_path / "jax/model.npz")), images))


def test_an_open_image_size_is_asked_for(tmp_path: Path) -> None:
    path, _, size = saved("oblong grid", tmp_path)
    with pytest.raises(
        WeightsError, match="positions for 12 tokens of 8x4 pixels, which a square image cannot have"
    ) as caught:
        open_model(path)
    assert "--image-size" in caught.value.hint
    with pytest.raises(WeightsError, match="an image of 8x8 has not"):
        open_model(path, image_size=(8, 8))
    assert open_model(path, image_size=size)[0].config.image_size == size
