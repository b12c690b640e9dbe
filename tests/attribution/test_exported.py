"""Maps of exported programs: files and numbers, what is refused, life without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.bundles import digits, digits_onnx, held_out, png
from tests.runtime.test_engines import with_sums
from tests.runtime.test_predictor import ROOT, WITHOUT_TORCH

from tesela.cli.main import run
from tesela.imaging.preprocess import normalize
from tesela.models.bundle import read_info
from tesela.runtime.predictor import Predictor


def test_the_map_is_the_programs_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A graph whose ``map`` is the sum of the pixels: the numbers are these, of the predicted class."""
    program = with_sums(tmp_path)
    image = digits()[0][1500]
    (tmp_path / "a.png").write_bytes(png(image))
    (tmp_path / "b.png").write_bytes(b"no image")
    words = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(tmp_path / "out"), "--json"]
    assert run(["explain", str(program), *words]) == 1
    good, bad = json.loads(capsys.readouterr().out.splitlines()[-1])["images"]
    (entry,) = good["classes"]
    wanted = Predictor(program, backend="onnxruntime").predict([image])[0].best
    assert (entry["label"], entry["index"]) == (wanted.label, wanted.index)
    assert entry["probability"] == pytest.approx(wanted.probability, abs=1e-6)
    with np.load(good["npz"]) as arrays:
        expected = normalize(image[None], read_info(program).image).sum(1)
        np.testing.assert_allclose(arrays["map"], expected, atol=1e-4)
        assert arrays["labels"].tolist() == [wanted.label]
    assert Path(good["figure"]).is_file()
    assert Path(entry["png"]).is_file()
    assert bad["error"]["code"] == "not_an_image"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--method", "rollout"], "no maps of the method rollout"),
        (["--method", "occlusion"], "no maps of the method occlusion"),
        (["--target", "one"], "without --target"),
        (["--discard", "0.5"], "without --discard"),
        (["--region", "0,0,2,2"], "without --region"),
        (["--layer", "0"], "without --layer"),
    ],
)
def test_what_a_program_cannot_be_asked(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = with_sums(tmp_path)
    (tmp_path / "a.png").write_bytes(held_out(1)[0][0])
    out = tmp_path / "out"
    assert run(["explain", str(program), str(tmp_path / "a.png"), "--out", str(out), *words]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_it_explains_without_torch(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(held_out(1)[0][0])
    code = WITHOUT_TORCH.partition("import json")[0] + "from tesela.cli.main import main; main(sys.argv[2:])"
    words = ["explain", str(with_sums(tmp_path)), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", code, "blocked", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_program_without_maps_says_how_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(held_out(1)[0][0])
    assert run(["explain", str(digits_onnx()), str(tmp_path / "a.png")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
