"""``hub:NAME[@REVISION]`` from a cache laid out as huggingface_hub lays it out, with the hub out of reach."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from tests.parity.huggingface_models import close, result, saved

from tesela.checkpoints.cache import bundle_of
from tesela.checkpoints.open import open_model
from tesela.cli.main import run
from tesela.core.errors import UsageError, WeightsError
from tesela.models.bundle import read_info

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a machine without a network."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def store(cache: Path, name: str, commit: str, files: Path, *, ref: str = "main") -> Path:
    """Put a folder into the cache: content in blobs, a snapshot of links, a name for the commit."""
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    for file in files.iterdir():
        data = file.read_bytes()
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_models_of_a_revision(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch by default, another tag where it is asked for.

    Both pinned in the provenance with the weights' SHA-256.
    """
    theirs = saved("vit", tmp_path / "one")
    saved("deit-teacher", tmp_path / "two")
    store(cache, "someone/tiny", FIRST, tmp_path / "one")
    store(cache, "someone/tiny", SECOND, tmp_path / "two", ref="v2")
    images = torch.randn(1, 3, 24, 24)
    model, info = open_model("hub:someone/tiny")
    with torch.no_grad():
        close(model(images), result(theirs, images))
    source = info.provenance["source"]
    weights = (tmp_path / "one/model.safetensors").read_bytes()
    assert (source["hub"], source["revision"]) == ("someone/tiny", FIRST)
    assert source["files"] == {"model.safetensors": hashlib.sha256(weights).hexdigest()}
    assert open_model("hub:someone/tiny@v2")[1].architecture == "deit"
    assert open_model(f"hub:someone/tiny@{FIRST}")[1].architecture == "vit"
    monkeypatch.setenv("TESELA_HOME", str(tmp_path / "home"))
    assert bundle_of("hub:someone/tiny") == bundle_of("hub:someone/tiny")
    assert run(["convert", "hub:someone/tiny@v2", str(tmp_path / "bundle")]) == 0
    assert read_info(tmp_path / "bundle").provenance["source"]["revision"] == SECOND


def test_pickled_repositories(cache: Path, tmp_path: Path) -> None:
    model = saved("vit", tmp_path / "hf")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text((tmp_path / "hf/config.json").read_text())
    from safetensors.torch import load_file

    torch.save(load_file(tmp_path / "hf/model.safetensors"), tmp_path / "old/pytorch_model.bin")
    store(cache, "someone/old", FIRST, tmp_path / "old")
    assert open_model("hub:someone/old")[1].num_classes == model.config.num_labels


def test_what_cannot_be_had(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="someone/tiny is not in the cache of this machine") as caught:
        open_model("hub:someone/tiny")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    with pytest.raises(WeightsError, match="someone/tiny at revision v9 is not in the cache"):
        open_model("hub:someone/tiny@v9")
    for wrong in ("hub:", "hub:a/b/c", "hub:../etc", "hub:some one"):
        with pytest.raises((UsageError, WeightsError), match=r"name of a model repository|not in the cache"):
            open_model(wrong)
    assert run(["convert", "hub:someone/tiny", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text(json.dumps({"model_type": "vit"}))
    store(cache, "someone/empty", FIRST, tmp_path / "empty")
    with pytest.raises(WeightsError, match="holds no weights that are known"):
        open_model("hub:someone/empty")


def test_a_damaged_file_in_the_cache(cache: Path, tmp_path: Path) -> None:
    saved("vit", tmp_path / "hf")
    snapshot = store(cache, "someone/tiny", FIRST, tmp_path / "hf")
    blob = (snapshot / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.safetensors in the cache is damaged: its SHA-256 is not"):
        open_model("hub:someone/tiny")
