"""The model card says what, how good, on what, how to use it, and what it is not good for."""

from __future__ import annotations

import yaml

from tesela.models.card import Card

CARD = Card(
    model="vit_nano",
    noun="image classifier",
    pipeline_tag="image-classification",
    parameters=136_138,
    data="digits",
    images={"train": 1439, "val": 179, "test": 179},
    labels=["zero", "one"],
    size=(8, 8, 1),
    scores={"accuracy": 0.98765, "top-5 accuracy": 1.0, "expected calibration error": 0.0123},
    split="test",
    steps=880,
    recipe="digits",
)


def test_front_matter_is_yaml_and_the_numbers_are_there() -> None:
    """Reference: the fields themselves; front matter as model hubs read it."""
    _, front, body = CARD.text().split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-classification"
    for part in (
        "136,138 parameters",
        "880 steps",
        "grey images of 8 x 8",
        "| accuracy | 0.9877 |",
        "179 images of the test split",
        "zero, one",
    ):
        assert part in body
    assert "license" not in yaml.safe_load(front)
    assert "not stated" in body


def test_without_scores_it_says_so() -> None:
    """No number is made up."""
    import dataclasses

    text = dataclasses.replace(CARD, scores={}, license="apache-2.0", origin="runs/base").text()
    assert "It was not tested" in text
    assert "fine-tuned from runs/base" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
