"""A run goes on with another cache of images: the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.training.digit_runs import fingerprint, signal_after, tiny

from tesela.core.errors import InterruptedRunError
from tesela.runs.folder import Run
from tesela.training.run import resumed_config, train


@pytest.mark.parametrize("caches", [("ram", "none"), ("none", "ram"), ("auto", "none")])
def test_crops_of_images_larger_than_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caches: tuple[str, str]
) -> None:
    """Reference: the run that nobody disturbed, with the first cache; whose crops see the images' detail."""
    generator = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 40)).astype(np.uint8)).save(file)
    augment = {"random_resized_crop": True, "hflip": 0.5}
    data = {"source": str(tmp_path / "photos"), "cache": caches[0], "workers": 0, "val_fraction": 0.0}
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    options = {"data": data, "augment": augment, "image_size": 8, "epochs": 2, "from": "scratch"}
    train(tiny(whole.path, **options))
    signal_after(monkeypatch, "loop.after_step", 2)
    with pytest.raises(InterruptedRunError, match="after step 2"):
        train(tiny(run.path, **options))
    monkeypatch.undo()
    train(resumed_config(run.path, {"data": {"cache": caches[1]}}), resume=True)
    assert fingerprint(run) == fingerprint(whole)
