"""``tesela label suggest`` round trip: suggest, fill in, take back, train."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.test_evaluate import write_run
from tests.pictures import make_pictures

from tesela.cli.main import run
from tesela.data.open import open_source
from tesela.evaluation.suggest import uncertainties

Rows = list[dict[str, str]]


def table(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def fill(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["path", "label", "suggested"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def suggested(words: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
    assert run(["label", "suggest", *words, "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_manifest_goes_out_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: the files of the folder; labels are kept, nothing is suggested twice, training opens it."""
    data = make_pictures(tmp_path / "photos", {"a": 12, "b/c": 12, ".": 6})
    out = tmp_path / "lists" / "labels.csv"
    out.parent.mkdir()
    answer = suggested([str(data), "--count", "8", "--out", str(out)], capsys)
    rows = table(out)
    assert [row["path"] for row in rows] == answer["suggested"]
    assert [row["suggested"] for row in rows] == [str(rank) for rank in range(1, 9)]
    assert all((out.parent / row["path"]).is_file() and row["label"] == "" for row in rows)
    assert not answer["uncertain"] and len(set(answer["suggested"])) == 8
    fill(out, [{**row, "label": ("cat", "dog")[place % 2]} for place, row in enumerate(rows[:6])] + rows[6:])
    more = suggested([str(data), "--labels", str(out), "--count", "5"], capsys)
    again = table(out)
    assert {row["path"]: row["label"] for row in again if row["label"]} == {
        row["path"]: ("cat", "dog")[place % 2] for place, row in enumerate(rows[:6])
    }
    assert more["labelled"] == 6 and more["uncertain"]
    assert not {row["path"] for row in rows[:6]} & set(more["suggested"])
    assert more["coverage"] > 0
    fill(out, [{**row, "label": row["label"] or "dog"} for row in again])
    source = open_source(out)
    assert source.labels == ("cat", "dog")
    assert sum(len(items) for items in source.splits.values()) == 11


def test_a_model_tells_images_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: the names of a data set that is no folder of files, taken back by its rows."""
    write_run(tmp_path / "run")
    out = tmp_path / "labels.csv"
    answer = suggested(
        ["digits", "--from", str(tmp_path / "run"), "--count", "12", "--out", str(out)], capsys
    )
    assert len(answer["suggested"]) == 12
    assert all(name.startswith("digits#") for name in answer["suggested"])
    rows = table(out)
    assert len({row["path"] for row in rows}) == 12
    fill(out, [{**row, "label": str(place % 3)} for place, row in enumerate(rows)])
    again = suggested(["digits", "--labels", str(out), "--count", "4"], capsys)
    assert not set(again["suggested"]) & {row["path"] for row in rows}


def test_uncertainty_is_one_minus_the_margin() -> None:
    """Reference: scikit-learn's classifier on the same standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    features = random.normal(size=(50, 6)).astype(np.float32)
    labelled, labels = np.arange(12), [("x", "y", "z")[place % 3] for place in range(12)]
    wide = features.astype(np.float64)
    scaler = StandardScaler().fit(wide[:12])
    probe = LogisticRegression(tol=1e-10, max_iter=5000).fit(scaler.transform(wide[:12]), labels)
    shares = np.sort(probe.predict_proba(scaler.transform(wide)), axis=1)
    found = uncertainties(features, labelled, labels)
    assert found is not None
    np.testing.assert_allclose(found, 1 - (shares[:, -1] - shares[:, -2]), atol=1e-5)
    assert uncertainties(features, labelled, ["x"] * 12) is None


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_pictures(tmp_path / "photos", {"a": 4})
    (data / "a" / "001.png").write_bytes(b"no image")
    answer = suggested([str(data), "--count", "9", "--out", str(tmp_path / "x.csv")], capsys, code=1)
    assert [Path(bad["name"]).name for bad in answer["unreadable"]] == ["001.png"]
    assert len(answer["suggested"]) == 3


def test_one_image_alone_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_pictures(tmp_path / "photos", {"a": 1})
    answer = suggested([str(data), "--out", str(tmp_path / "x.csv")], capsys)
    assert answer["suggested"] == ["photos/a/000.png"]


def test_bad_input_is_refused_and_labels_are_never_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_pictures(tmp_path / "photos", {"a": 3})
    other = make_pictures(tmp_path / "others", {"a": 3})
    kept, strange = tmp_path / "kept.csv", tmp_path / "strange.csv"
    fill(kept, [{"path": f"photos/a/00{n}.png", "label": "cat", "suggested": ""} for n in range(3)])
    fill(strange, [{"path": "photos/a/000.png", "label": word, "suggested": ""} for word in ("cat", "dog")])
    before = kept.read_bytes()
    for words, code, said in (
        ([str(data), "--out", str(kept)], 2, "may hold labels"),
        ([str(data), "--labels", str(kept)], 1, "left to label"),
        ([str(other), "--labels", str(kept)], 1, "no image of the data"),
        ([str(data), "--labels", str(strange)], 1, "'cat' and 'dog'"),
        ([str(data), "--labels", str(tmp_path / "nothing.csv")], 2, "there is no manifest"),
        ([str(data), "--out", str(tmp_path / "x.txt")], 2, "end the name in .csv"),
        ([str(data), "--count", "0", "--out", str(tmp_path / "x.csv")], 2, "1 or more"),
        ([str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.csv")], 2, "nowhere"),
    ):
        assert run(["label", "suggest", *words]) == code, words
        error = capsys.readouterr().err
        assert said in error and "hint: " in error, words
    assert kept.read_bytes() == before
    shutil.rmtree(data)
