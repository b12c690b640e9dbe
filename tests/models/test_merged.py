"""Merged tokens against a float64 reference written out in loops, and what merges none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tesela.attribution.explain import explain
from tesela.core.errors import UsageError
from tesela.layers.attention.attention import Attention
from tesela.layers.initialise import initialise
from tesela.layers.merging import merge_alike
from tesela.models.encoder.merged import MergedClassifier, size_weighted, unmergeable
from tesela.models.factory import create_model, create_segmenter

Rows = NDArray[np.float64]
TINY: dict[str, Any] = {
    "num_classes": 3, "image_size": (12, 8), "channels": 1, "seed": 0, "width": 16, "depth": 3, "heads": 2
}  # fmt: skip


def model(**options: Any) -> Any:
    made = create_model("vit_nano", **TINY, **options).eval()
    for parameter in made.parameters():  # sharper than at the start, so that tokens differ
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    return made


def merged_by_hand(tokens: Rows, sizes: Rows, keys: Rows, count: int, prefix: int) -> tuple[Rows, Rows]:
    """One image: each second patch looks for the one of the rest with the largest cosine."""
    lookers = list(range(prefix, len(tokens), 2))
    others = list(range(prefix + 1, len(tokens), 2))
    found = []
    for looker in lookers:
        cosines = [
            float(keys[looker] @ keys[other])
            / math.sqrt(float(keys[looker] @ keys[looker]) * float(keys[other] @ keys[other]))
            for other in others
        ]
        found.append((max(cosines), looker, others[int(np.argmax(cosines))]))
    gone = {looker: other for _, looker, other in sorted(found, key=lambda one: -one[0])[:count]}
    rows, counts = [], []
    for place in [*range(prefix), *(one for one in lookers if one not in gone), *others]:
        members = [place, *(looker for looker, other in gone.items() if other == place)]
        total = sum(float(sizes[one]) for one in members)
        rows.append(sum(sizes[one] * tokens[one] for one in members) / total)
        counts.append(total)
    return np.array(rows), np.array(counts)


@pytest.mark.parametrize(("count", "prefix"), [(1, 1), (3, 1), (2, 0), (3, 2)])
def test_alike_tokens_become_their_weighted_mean(count: int, prefix: int) -> None:
    random = torch.Generator().manual_seed(count)
    tokens = torch.randn(2, prefix + 9, 5, generator=random)
    keys = torch.randn(2, prefix + 9, 4, generator=random)
    sizes = torch.randint(1, 5, (2, prefix + 9), generator=random).float()
    found, counts = merge_alike(tokens, sizes, keys, count=count, prefix=prefix)
    for image in range(2):
        values, weights, directions = (one[image].double().numpy() for one in (tokens, sizes, keys))
        rows, wanted = merged_by_hand(values, weights, directions, count, prefix)
        np.testing.assert_allclose(found[image].numpy(), rows, atol=1e-5)
        np.testing.assert_allclose(counts[image].numpy(), wanted)
    np.testing.assert_allclose(counts.sum(1).numpy(), sizes.sum(1).numpy())
    torch.testing.assert_close(found[:, :prefix], tokens[:, :prefix], rtol=0, atol=0)


def test_at_most_half_of_the_patches_are_merged() -> None:
    tokens = torch.randn(1, 6, 4)
    found, counts = merge_alike(tokens, torch.ones(1, 6), tokens, count=100, prefix=1)
    assert found.shape == (1, 4, 4) and counts.sum() == 6
    same, _ = merge_alike(tokens, torch.ones(1, 6), tokens, count=0, prefix=1)
    assert same is tokens


@pytest.mark.parametrize("first", [None, 1])
def test_a_token_counts_as_often_as_its_size(first: int | None) -> None:
    """Reference: float64 attention over the same tokens, each repeated as often as its size says."""
    attention = Attention(8, 2)
    initialise(attention, torch.Generator().manual_seed(0))
    tokens, sizes = torch.randn(1, 4, 8), torch.tensor([[1.0, 3.0, 1.0, 2.0]])
    found, keys = size_weighted(attention, tokens, sizes, first=first)
    rows = tokens[0].double().numpy()
    weight, bias = (one.detach().double().numpy() for one in (attention.qkv.weight, attention.qkv.bias))
    q, k, v = np.split(rows @ weight.T + bias, 3, axis=1)
    mixed = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        repeated = np.repeat(np.arange(4), [1, 3, 1, 2])
        scores = np.exp(q[:, part] @ k[repeated][:, part].T / 2)
        mixed.append(scores / scores.sum(1, keepdims=True) @ v[repeated][:, part])
    out = np.concatenate(mixed, axis=1) @ attention.out.weight.detach().double().numpy().T
    wanted = out + attention.out.bias.detach().double().numpy()
    np.testing.assert_allclose(found[0].detach().numpy(), wanted[:first], atol=1e-5)
    np.testing.assert_allclose(keys[0].detach().numpy(), (k[:, :4] + k[:, 4:]) / 2, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"registers": 2}])
def test_without_merging_it_is_the_model_to_the_bit(options: dict[str, Any]) -> None:
    network, images = model(**options), torch.randn(2, 1, 12, 8)
    with torch.no_grad():
        assert torch.equal(MergedClassifier(network, 0)(images), network(images))


NORMS = {"qk_norm": True, "inner_norm": "both", "norm_kind": "rms"}


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"layer_scale": 0.1}, {"registers": 2}, NORMS])
def test_equal_patches_merge_without_a_trace(options: dict[str, Any]) -> None:
    """A uniform image without positions has equal patches: merged or not, the logits are the same."""
    network = model(position="none", **options)
    images = torch.full((2, 1, 12, 8), 0.7)
    with torch.no_grad():
        torch.testing.assert_close(MergedClassifier(network, 4)(images), network(images), rtol=0, atol=1e-4)


def test_a_whole_network_by_hand() -> None:
    """Blocks of float64 modules, tokens merged by the loops above between attention and MLP."""
    network: Any = model().double()
    images = torch.randn(1, 1, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        tokens = network.backbone.embedded(images)
        sizes = np.ones(tokens.shape[1])
        for index, block in enumerate(network.backbone.blocks):
            q, k, v = block.attention.project(block.norm1(tokens))
            logits = q @ k.transpose(2, 3) * block.attention.scale + torch.from_numpy(np.log(sizes))
            heads = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
            tokens = tokens + block.attention.out(heads)
            if index < 2:
                rows, sizes = merged_by_hand(tokens[0].numpy(), sizes, k.mean(1)[0].numpy(), 3, 1)
                tokens = torch.from_numpy(rows)[None]
            tokens = tokens + block.mlp(block.norm2(tokens))
        wanted = network.head(network.backbone.norm(tokens)[:, 0])
        found = MergedClassifier(network, 3)(images)
    assert len(sizes) == 1 + 24 - 6 and found.dtype == torch.float64
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_what_merges_no_tokens_says_why() -> None:
    options = {**TINY, "image_size": 16}
    for other, part in (
        (create_segmenter("vit_nano", decoder="linear", **options), "whole grid"),
        (create_model("resnet20_small", num_classes=2, image_size=16), "no tokens of one grid"),
        (create_model("vit_nano", **options, position="rotary"), "where tokens stand"),
        (create_model("vit_nano", **options, norm="post"), "normalise"),
        (create_model("vit_nano", **options, pool="attention"), "by attention"),
    ):
        assert part in unmergeable(other)
        with pytest.raises(UsageError, match="cannot be merged"):
            MergedClassifier(other, 1)


def test_methods_of_the_patch_grid_are_refused() -> None:
    network, images = MergedClassifier(model(), 2), torch.randn(1, 1, 12, 8)
    for method in ("auto", "rollout", "presence", "attention", "gradcam"):
        with pytest.raises(UsageError, match="merges tokens") as caught:
            explain(network, images, method=method)
        assert "rise" in caught.value.hint
