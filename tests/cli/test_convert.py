"""``tesela convert``: what it writes and says, and how it refuses damaged, foreign and malicious files.

Exit code 1, two lines, names.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.huggingface_models import close, result, saved
from tests.parity.jax_reference import random_arrays
from tests.parity.timm_reference import random_tensors
from tests.runtime.bundles import digits_run

import tesela as ts
from tesela.cli.main import run
from tesela.models.bundle import load_bundle, read_info


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    saved("vit", folder)
    return folder


def refused(source: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    """The message of a conversion that fails and leaves nothing behind."""
    out = source.parent / f"{source.name}-out"
    assert run(["convert", str(source), str(out), *words]) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")
    assert captured.out == "" and not out.exists()
    return lines[0]


def test_bundle_and_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = saved("dinov2", tmp_path / "hf", id2label={0: "cat", 1: "crane", 2: "dog", 3: "crane", 4: "fox"})
    capsys.readouterr()
    assert run(["convert", str(tmp_path / "hf"), str(tmp_path / "bundle"), "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out.splitlines()[-1])
    # the mask token
    assert said["parameters"] == sum(parameter.numel() for parameter in theirs.parameters()) - 48
    assert said["carried"] == ["dinov2.embeddings.mask_token"] and "mask_token (1x48)" in captured.err
    model, info = load_bundle(tmp_path / "bundle")
    assert info.labels == ["cat", "crane (1)", "dog", "crane (3)", "fox"]
    assert (
        list(info.provenance["source"]["files"]) == ["model.safetensors"]
        and len(info.provenance["source"]["files"]["model.safetensors"]) == 64
    )
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        close(model(images), result(theirs, images))
    assert run(["export", str(tmp_path / "bundle"), "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    assert json.loads((tmp_path / "back/config.json").read_text())["id2label"]["3"] == "crane"


def test_other_size_and_head(source: Path, tmp_path: Path) -> None:
    assert (
        run(["convert", str(source), str(tmp_path / "bundle"), "--image-size", "32x48", "--num-classes", "9"])
        == 0
    )
    info = read_info(tmp_path / "bundle")
    assert info.image.size == (32, 48) and info.num_classes == 9 and info.model["image_size"] == [32, 48]
    assert ts.load(tmp_path / "bundle", image_size=24).config.image_size == (24, 24)


def test_usage(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    for words, message in (
        ([str(tmp_path / "none"), str(tmp_path / "out")], "no run, bundle or checkpoint"),
        ([str(digits_run()), str(tmp_path / "out")], "is a tesela bundle already"),
        ([str(source), str(tmp_path / "mine")], "exists and is no bundle"),
        ([str(source), str(tmp_path / "out"), "--image-size", "big"], "is no size"),
        ([str(tmp_path / "mine"), str(tmp_path / "out")], "holds no weights"),
        (["hub:not a name", str(tmp_path / "out")], "no name of a model repository"),
        (["vit_s16", str(tmp_path / "out")], "the name of a model without weights"),
    ):
        assert run(["convert", *words]) == 2
        assert message in capsys.readouterr().err.splitlines()[0]
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


Change = Callable[[dict[str, torch.Tensor]], Any]
QUERY = "vit.encoder.layer.1.attention.attention.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("vit.layernorm.weight"), "missing: vit.layernorm.weight (48)"),
        (lambda t: t.pop("classifier.bias"), "missing: classifier.bias"),
        (lambda t: t.update({"lora.down": torch.ones(2, 3)}), "not known: lora.down (2x3)"),
        (
            lambda t: t.update({QUERY: torch.ones(48, 32)}),
            f"of another shape: {QUERY} (48x32 instead of 48x48)",
        ),
        (
            lambda t: t["vit.layernorm.bias"][3:5].fill_(float("nan")),
            "NaN or infinite: vit.layernorm.bias (2 of 48 values)",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    change: Change, message: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(source, tmp_path / "bad")
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "bad/model.safetensors", metadata={"format": "pt"})
    assert message in refused(tmp_path / "bad", capsys)


def test_unknown_architectures_and_damaged_texts(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(source, tmp_path / "bad")
    config = json.loads((source / "config.json").read_text())
    for text, message in (
        (
            json.dumps(config | {"architectures": ["PvtForImageClassification"], "model_type": "pvt"}),
            "'PvtForImageClassification'",
        ),
        (
            json.dumps(config | {"architectures": ["SwinForImageClassification"], "model_type": "swin"}),
            "holds no Swin",
        ),
        (json.dumps(config | {"hidden_size": 47}), "that cannot be: width 47"),
        (json.dumps(config | {"id2label": {"0": "a", "1": "b"}}), "names 2 classes, the weights have 5"),
        (json.dumps({"hidden_size": 48}), "names no architecture"),
        (json.dumps(config)[:200], "config.json cannot be read: it is damaged or no JSON"),
        ("[1, 2]", "config.json is not of a tesela bundle"),
    ):
        (tmp_path / "bad/config.json").write_text(text)
        assert message in refused(tmp_path / "bad", capsys)


def test_truncated_files(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(source, tmp_path / "bad")
    whole = (source / "model.safetensors").read_bytes()
    for size in (len(whole) // 2, 4, 0):
        (tmp_path / "bad/model.safetensors").write_bytes(whole[:size])
        assert "truncated or damaged" in refused(tmp_path / "bad", capsys)
    torch.save(random_tensors(), tmp_path / "model.pth")
    np.savez(tmp_path / "model.npz", **random_arrays(grid=(2, 2)))  # type: ignore[arg-type]
    for name in ("model.pth", "model.npz"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-500])
        assert "truncated" in refused(tmp_path / name, capsys)
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert "truncated or damaged" in refused(tmp_path / "huge.safetensors", capsys)


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.mark, "it ran"))


@pytest.mark.parametrize("ending", ["pth", "bin", "pt", "ckpt"])
def test_a_pickle_with_code_is_refused_and_does_not_run(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark, path = tmp_path / "mark", tmp_path / f"model.{ending}"
    torch.save({**random_tensors(), "extra": Payload(mark)}, path)
    assert "It is refused, and nothing of it was run" in refused(path, capsys)
    path.write_bytes(pickle.dumps(Payload(mark)))  # not even torch's form
    refused(path, capsys)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the payload works: it was the reader that did not run it


def test_arrays_of_objects_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "model.npz", cls=np.array([Payload(tmp_path / "mark")], dtype=object))
    assert "cls.npy of type object" in refused(tmp_path / "model.npz", capsys)
    assert not (tmp_path / "mark").exists()


def member(path: Path, header: str, data: bytes) -> Path:
    """An .npz with one array of that header."""
    text = header.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cls.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


def test_archives_that_claim_too_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    assert "cls.npy claims 4,000,000,000,000 bytes" in refused(
        member(tmp_path / "claim.npz", claim, bytes(16)), capsys
    )
    long = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 20_000 + "), }"
    assert "damaged" in refused(member(tmp_path / "long.npz", long, bytes(4)), capsys)
    (tmp_path / "text.npz").write_text("no archive")
    assert "no .npz" in refused(tmp_path / "text.npz", capsys)
    bomb = bytearray(member(tmp_path / "bomb.npz", claim, bytes(16)).read_bytes())
    at = bomb.index(b"PK\x01\x02") + 24
    bomb[at : at + 4] = struct.pack("<I", 4_000_000_000)  # the archive's own list says so
    (tmp_path / "bomb.npz").write_bytes(bomb)
    assert "would unpack to 4,000,000,000 bytes in 1 arrays" in refused(tmp_path / "bomb.npz", capsys)


def test_shards_outside_of_the_folder(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    shutil.copy(source / "config.json", tmp_path / "bad")
    index = {"weight_map": {"classifier.bias": "../elsewhere/model.safetensors"}}
    (tmp_path / "bad/model.safetensors.index.json").write_text(json.dumps(index))
    assert "points outside of its folder" in refused(tmp_path / "bad", capsys)


def test_every_verb_takes_a_checkpoint(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Converted once into the cache of ``TESELA_HOME``; the second time it is found there."""
    from PIL import Image

    monkeypatch.setenv("TESELA_HOME", str(tmp_path / "home"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(
        tmp_path / "image.png"
    )
    for _ in range(2):
        assert run(["predict", str(source), str(tmp_path / "image.png"), "--top", "5", "--json"]) == 0
    assert len(list((tmp_path / "home/converted").iterdir())) == 1
    assert run(["export", str(source), "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back/model.safetensors").is_file()


def test_converting_needs_no_library_but_torch(source: Path, tmp_path: Path) -> None:
    """Where none of the others can be imported; those that can only say whether they compute the same."""
    code = (
        "import sys; from pathlib import Path;"
        "sys.modules |= dict.fromkeys(('transformers', 'timm', 'huggingface_hub', 'jax'));"
        "from tesela.checkpoints.convert import convert_checkpoint as convert;"
        "convert(sys.argv[1], Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", code, str(source), str(tmp_path / "bundle")]
    assert subprocess.run(words, capture_output=True, text=True, check=False).returncode == 0
    assert (tmp_path / "bundle" / "model.safetensors").is_file()
