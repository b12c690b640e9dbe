"""Scoring of shards: the rows of the same images as files, on a disk and in object storage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.storage.failing import FailingFileSystem, failing_storage
from tests.runtime.bundles import digits_onnx, held_out
from tests.runtime.scoring.test_score import rows

import tesela as ts
from tesela.cli.main import run
from tesela.data.open import open_source
from tesela.data.packing.pack import pack
from tesela.data.storage.remote import TRIES, RemotePath
from tesela.runtime.stored import stored_splits

MODEL = ["--backend", "onnxruntime", "--precision", "fp32"]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingFileSystem]]:
    stored_splits.cache_clear()
    with failing_storage(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty digits in class folders."""
    folder = tmp_path_factory.mktemp("digits")
    for number, content in enumerate(held_out(40)[0]):
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(content)
    return folder


def expected(images: Path) -> dict[bytes, str]:
    files = sorted(images.rglob("*.png"))
    found = ts.predict(digits_onnx(), files, backend="onnxruntime", precision="fp32")
    return {file.read_bytes(): result.best.label for file, result in zip(files, found, strict=True)}


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("beginning", ["", "failing://bucket/"])
def test_rows_of_shards_are_those_of_the_files(
    kind: Any, beginning: str, images: Path, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    source = open_source(images)
    word = beginning + "shards" if beginning else str(tmp_path / "shards")
    pack(source, RemotePath(word) if beginning else Path(word), rows=7, kind=kind)
    out = tmp_path / "out.jsonl"
    command = ["predict", str(digits_onnx()), word, "--out", str(out), "--parts", "9", *MODEL]
    assert run(command) == 0
    found, packed = rows(out), open_source(word)
    names = {
        f"{word}/{items.name(row)}": items.raw(row)
        for items in packed.splits.values()
        for row in range(len(items))
    }
    assert sorted(str(row["image"]) for row in found) == sorted(names) and len(found) == 40
    wanted = expected(images)
    assert {names[str(row["image"])]: row["label"] for row in found} == wanted
    for part in sorted(out.glob("part-*"))[1:3]:
        part.unlink()
    assert run(command) == 0 and rows(out) == found
    single = ts.predict(digits_onnx(), word, backend="onnxruntime", precision="fp32")
    assert [(one.source, one.best.label) for one in single] == [(row["image"], row["label"]) for row in found]


def test_archives_without_classes_are_scored(
    images: Path, storage: type[FailingFileSystem], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tarfile

    files = sorted(images.rglob("*.png"))[:6]
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        for file in files:
            archive.add(file, file.name)
    assert run(["predict", str(digits_onnx()), str(tmp_path / "some.tar"), "--json", *MODEL]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = expected(images)
    assert [row["label"] for row in found] == [wanted[file.read_bytes()] for file in files]
    assert found[5]["image"] == f"{tmp_path}/some.tar#5"


def test_a_storage_that_fails_half_way_ends_the_scoring_which_goes_on_later(
    images: Path, storage: type[FailingFileSystem], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(open_source(images), RemotePath("failing://bucket/shards"), rows=7)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    command = ["predict", str(digits_onnx()), "failing://bucket/shards", "--parts", "5", *MODEL]
    command += ["--batch", "4", "--dedupe", "--out"]
    assert run([*command, str(whole)]) == 0
    failed: list[str] = []

    def lost(call: str, path: str) -> None:
        if call == "read" and path.endswith("train-000003.tar"):
            failed.append(path)
            raise ConnectionResetError("reset")

    storage.before = staticmethod(lost)
    capsys.readouterr()
    assert run([*command, str(out)]) == 1
    said = capsys.readouterr().err
    assert f"train-000003.tar cannot be read, tried {TRIES} times: ConnectionResetError: reset" in said
    assert len(failed) % TRIES == 0 and 0 < len(rows(out)) < 40
    storage.before = staticmethod(lambda call, path: None)
    assert run([*command, str(out)]) == 0
    assert rows(out) == rows(whole) and len(rows(out)) == 40


def test_results_at_addresses_are_refused_with_what_to_do(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--out", "s3://bucket/rows.csv"], ["--parts", "5", "--out", "s3://bucket/rows.jsonl"]):
        assert run(["predict", str(digits_onnx()), str(images), *words, *MODEL]) == 2
        assert "copy it up afterwards" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_pictures_of_stored_images_have_names_of_their_own(
    images: Path, storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    from tesela.runtime.result_folder import ResultFolder
    from tesela.runtime.stored import find_sources
    from tesela.tasks.segmentation.result import Segmentation

    pack(open_source(images), tmp_path / "shards", rows=20)
    found = find_sources([str(tmp_path / "shards" / "val-000000.tar")])
    folder = ResultFolder(tmp_path / "masks", found)
    mask = Segmentation(
        mask=np.zeros((8, 8), np.uint8),
        size=(8, 8),
        counts=(64, 0),
        labels=("a", "b"),
        colours=((0, 0, 0),) * 2,
    )
    assert [folder.write(one, mask)[0] for one in found[:2]] == ["val-000000-0.png", "val-000000-1.png"]
