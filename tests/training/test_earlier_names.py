"""Files of earlier versions are read under today's names."""

from __future__ import annotations

import json
from pathlib import Path

from tesela.training.choices import Choices
from tesela.training.config import layered


def test_an_attention_kernel_that_was_renamed(tmp_path: Path) -> None:
    assert layered({"attention": "lean"}).attention == "cpu_bf16"
    assert layered({"attention": "matmul"}).attention == "matmul"
    choices = Choices(
        model="vit_nano",
        device="cpu",
        threads=1,
        precision="bf16",
        attention="cpu_bf16",
        batch_size=4,
        steps_per_epoch=2,
    )
    choices.save(tmp_path / "choices.json")
    tree = json.loads((tmp_path / "choices.json").read_text())
    (tmp_path / "choices.json").write_text(json.dumps({**tree, "attention": "lean"}))
    assert Choices.read(tmp_path / "choices.json") == choices
