"""Recipes: named full runs, each a function that returns a configuration.

Its docstring states what it promises and what was measured.

Its values lie below the command line and a ``--config`` file: ``tesela train DATA --recipe NAME --epochs 3``
changes the epochs only.
"""

from __future__ import annotations

from typing import Any

from tesela.core.registry import lookup, names, register

for _module, _name, _summary in (
    ("digits", "digits", "scikit-learn's 8x8 digits: the demo"),
    ("mnist", "mnist_article", "MNIST, the tutorial's 613,710-parameter ViT, 5 epochs"),
    ("mnist", "mnist_article_twin", "its library twin with ordinary heads, 371,910 parameters"),
    ("mnist", "mnist_article_printed", "the tutorial's ViT with its own Adam at 3e-4, batches of 64"),
    ("mnist", "mnist_fine", "the tutorial's width and depth on patches of 4 x 4, 613,710 parameters"),
    ("mnist", "mnist_fine_twin", "the same with ordinary heads, 371,910 parameters"),
    ("mnist", "mnist_best", "MNIST, the best score for the time given"),
    ("cifar10", "cifar10_compact", "CIFAR-10 from scratch in half an hour on two cores"),
    ("cifar10", "cifar10_overnight", "CIFAR-10 from scratch, one night on two cores"),
    ("camvid", "camvid_60min", "CamVid from scratch in an hour on two cores"),
    ("pets", "pets_article", "Oxford-IIIT Pet with the plain ViT segmenter of the article"),
    ("masks", "segment", "masks of your own: several scales, Dice, moving average"),
    ("finetune", "finetune", "fine-tuning for your own images: AdamW, layer decay, RandAugment"),
    ("finetune", "finetune_paper", "fine-tuning as the ViT paper has it: SGD, cosine, 384 px"),
    ("finetune", "head_only", "the head alone, on features that are computed once"),
    ("finetune", "lora", "low-rank adapters and the head"),
    ("finetune", "few_labels", "a pre-trained network and a few labels; see tesela study few-labels"),
    ("pretrain", "pretrain_masked", "images without labels: masked patches as in the ViT paper"),
    ("pretrain", "pretrain_mae", "images without labels: masked autoencoder, the cheapest step"),
    ("pretrain", "pretrain_dino", "images without labels: a momentum teacher on crops"),
):
    register("recipe", _name, target=f"tesela.recipes.{_module}:{_name}", summary=_summary)


def find_recipe(name: str) -> dict[str, Any]:
    """The configuration of a recipe.

    Raises:
        UnknownNameError: with the nearest names.
    """
    recipe: dict[str, Any] = lookup("recipe", name).load()()
    return recipe


def known() -> list[str]:
    """All recipes."""
    return names("recipe")
