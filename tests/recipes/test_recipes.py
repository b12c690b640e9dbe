"""The recipes of fine-tuning make valid configurations that say what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tesela.data.config import AugmentConfig
from tesela.recipes import find_recipe, known
from tesela.training.config import layered
from tesela.training.run import train


@pytest.mark.parametrize("name", known())
def test_every_recipe_is_a_valid_configuration(name: str) -> None:
    """Unknown fields and values out of range would raise."""
    layered(find_recipe(name), {"recipe": name})


def test_the_papers_values() -> None:
    """Reference: appendix B.1.1 and table 4 of arXiv 2010.11929."""
    config = layered(find_recipe("finetune_paper"))
    assert (config.optim.name, config.optim.momentum, config.optim.weight_decay) == ("sgd", 0.9, 0.0)
    assert (config.schedule.name, config.clip_norm, config.size) == ("cosine", 1.0, (384, 384))
    assert config.batch_size * config.accumulate == 512
    assert config.schedule.warmup == 0.05
    assert config.optim.lr in (0.001, 0.003, 0.01, 0.03)


def test_the_tutorials_training() -> None:
    """As printed: Adam at a constant 3e-4, batches of 64, no decay, no clipping, nothing else added."""
    config = layered(find_recipe("mnist_article_printed"))
    assert (config.model, config.optim.name, config.optim.lr) == ("vit_mnist_article", "adam", 3e-4)
    assert (config.batch_size, config.epochs, config.precision) == (64, 5, "fp32")
    assert (config.schedule.name, config.schedule.warmup) == ("constant", 0.0)
    assert (config.clip_norm, config.optim.weight_decay, config.augment) == (0.0, 0.0, AugmentConfig())


@pytest.mark.parametrize("name", ["finetune", "finetune_paper", "head_only", "lora"])
def test_they_run_on_a_small_source(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A start that no test data is too small for: fewer images than the paper's batch."""
    place = tmp_path_factory.getbasetemp() / "recipes"
    quick: dict[str, Any] = {
        "precision": "fp32",
        "attention": "fused",
        "threads": 1,
        "tensorboard": False,
        "report": False,
    }
    data = {"source": "digits", "per_class": 8, "workers": 0}
    net = {"width": 16, "depth": 1, "heads": 2}
    base = place / "base"
    if not Path(base).exists():
        train(layered(quick, {"out": str(base), "data": data, "model": "vit_nano", "net": net, "epochs": 1}))
    changes = {
        "out": str(place / name),
        "data": data,
        "from": str(base),
        "recipe": name,
        "epochs": 2,
        "image_size": 8,
    }
    found = train(layered(find_recipe(name), quick, changes))
    assert found.accuracy is not None
    assert found.trainable == {"head_only": 170, "lora": 170 + 8 * (64 + 32 + 48 + 48)}.get(
        name, found.parameters
    )
