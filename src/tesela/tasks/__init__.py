"""What is learnt: each objective turns a model, images and targets into a loss. Imports no torch until one is used."""

from tesela.core.registry import register

register(
    "objective",
    "classify",
    target="tesela.tasks.classification.objective:Supervised",
    summary="one label per image, by cross-entropy with hard or soft targets",
)
