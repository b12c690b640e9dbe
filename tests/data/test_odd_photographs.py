"""``data check`` names every fault of a folder in which everything odd was planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts.odd_photographs import FORMATS, STEMS, make_photographs
from tests.pictures import files_of

from tesela.cli.main import run
from tesela.data.config import DataConfig
from tesela.data.open import open_source

COUNT = 160


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.conftest import shared_folder

    shared = shared_folder()
    if shared is None:
        pytest.skip("no shared data: set TESELA_SHARED to the folder with data/ and golden/")
    root = tmp_path_factory.mktemp("odd") / "photos"
    return make_photographs(shared / "data/cifar10", root, count=COUNT)


def test_every_planted_fault_is_named(planted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", planted["root"], "--max-unreadable", "0.1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    notes = " ".join(answer["notes"])
    assert answer["images"] == COUNT
    assert answer["labels"] == planted["labels"]
    assert [bad["name"] for bad in answer["unreadable"]] == planted["corrupt"]
    pairs = [sorted((twin["first"], twin["second"])) for twin in answer["duplicates"]]
    assert sorted(pairs) == sorted(planted["copies"] + planted["conflicts"])
    conflicts = [sorted((twin["first"], twin["second"])) for twin in answer["conflicts"]]
    assert sorted(conflicts) == sorted(planted["conflicts"])
    assert answer["ignored"] == planted["ignored"]
    assert all(name in notes for name in (*planted["empty"], *planted["links"]))
    assert len(answer["sizes"]) > COUNT // 2
    kinds = {mode.split()[0] for mode in answer["modes"]}
    assert kinds == set(FORMATS.values())


def test_every_odd_name_is_an_image_and_comes_out_of_a_manifest(
    planted: dict[str, Any], tmp_path: Path
) -> None:
    source = open_source(planted["root"], config=DataConfig(max_unreadable=0.1))
    names = {items.name(row) for items in source.splits.values() for row in range(len(items))}
    assert len(planted["names"]) == len(STEMS) and set(planted["names"]) <= names
    for suffix in (".csv", ".jsonl"):
        out = tmp_path / f"split{suffix}"
        assert run(["data", "split", planted["root"], "--out", str(out)]) == 0
        assert files_of(open_source(out)) == files_of(source)
