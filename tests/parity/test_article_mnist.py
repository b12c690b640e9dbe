"""The tutorial's two networks for MNIST, as printed, with the same weights.

Rewritten here from its listing with torch.nn alone: separate projections of the width for queries, keys and
values, patches of 7 x 7, a class token, learned positions, LayerNorms with torch's own epsilon. Two things
differ from the print, on purpose: heads are split so that tokens attend to tokens (the printed view mixes
channels), and the last LayerNorm, printed and never called, is called.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.models import catalog
from tesela.models.factory import create_model
from tesela.models.model import Model, file_names
from tesela.models.shapes import step_shapes

WIDTH, DEPTH, PATCH, CLASSES = 100, 3, 7, 10
KINDS = ("weight", "bias")


class WideAttention(nn.Module):
    """Three heads of the full width each."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(WIDTH, heads * WIDTH) for _ in range(3))
        self.unify = nn.Linear(heads * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, _ = tokens.shape
        q, k, v = (
            layer(tokens).view(batch, count, self.heads, WIDTH).transpose(1, 2)  # (B, H, N, F)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / WIDTH**0.5, dim=-1)
        assert weights.shape == (batch, self.heads, count, count)  # N x N, not F x F
        joined = (weights @ v).transpose(1, 2).reshape(batch, count, self.heads * WIDTH)
        return self.unify(joined)  # type: ignore[no-any-return]


class PrintedBlock(nn.Module):
    """Pre-norm attention, pre-norm MLP of ReLU."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = WideAttention(heads)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class PrintedViT(nn.Module):
    """Patches of 7 x 7, class token, positions, three blocks, LayerNorm, one linear layer."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, WIDTH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, (28 // PATCH) ** 2 + 1, WIDTH))
        self.encoder = encoder
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        batch = len(images)
        patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)  # (B, 16, 49)
        tokens = torch.cat([self.token.expand(batch, -1, -1), self.embed(patches)], dim=1) + self.position
        return self.head(self.norm(self.encoder(tokens)[:, 0]))  # type: ignore[no-any-return]


def printed() -> PrintedViT:
    """The article's own network."""
    return PrintedViT(nn.Sequential(*[PrintedBlock(3) for _ in range(DEPTH)]))


def library() -> PrintedViT:
    """Its twin of the library's encoder: two heads that share the width, GELU."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, 2, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return PrintedViT(nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False))


def by_our_names(reference: PrintedViT, of: Callable[[nn.Module, str], Tensor]) -> dict[str, Tensor]:
    """The reference's tensors under our names; ``of`` gives one of a module's."""
    found = {
        "patches.weight": of(reference.embed, "weight").view(WIDTH, 1, PATCH, PATCH),
        "patches.bias": of(reference.embed, "bias"),
        "prefix.class_token": of(reference, "token"),
        "positions.table": of(reference, "position"),
    }
    own = isinstance(reference.encoder, nn.Sequential)
    names = {"norm": reference.norm, "head.linear": reference.head}
    for index in range(DEPTH):
        block, place = (
            reference.encoder.get_submodule(f"{index}" if own else f"layers.{index}"),
            f"blocks.{index}",
        )
        theirs = (
            {"norm1": "norm1", "norm2": "norm2", "attention.out": "attention.unify"}
            | {"mlp.expand": "mlp.0", "mlp.contract": "mlp.2"}
            if own
            else {"norm1": "norm1", "norm2": "norm2", "attention.out": "self_attn.out_proj"}
            | {"mlp.expand": "linear1", "mlp.contract": "linear2"}
        )
        names |= {f"{place}.{ours}": block.get_submodule(name) for ours, name in theirs.items()}
        for kind in KINDS:
            found[f"{place}.attention.qkv.{kind}"] = (
                torch.cat(
                    [of(block.get_submodule(f"attention.{part}"), kind) for part in ("query", "key", "value")]
                )
                if own
                else of(block.get_submodule("self_attn"), f"in_proj_{kind}")
            )
    return found | {f"{ours}.{kind}": of(module, kind) for ours, module in names.items() for kind in KINDS}


def fill(model: Model, tensors: dict[str, Tensor]) -> None:
    """Give ``model`` all of the tensors, named as in files."""
    own = file_names(model, dict(model.named_parameters()))
    assert own.keys() == tensors.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name].reshape(parameter.shape))


@pytest.mark.parametrize(
    ("name", "reference", "count"),
    [("vit_mnist_article", printed, 613_710), ("vit_mnist_article_twin", library, 371_910)],
)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_logits_and_gradients_are_those_of_the_printed_network(
    name: str, reference: Callable[[], PrintedViT], count: int, kind: torch.dtype, tolerance: float
) -> None:
    """Same weights, same images: logits and all gradients, relative to the largest."""
    torch.manual_seed(0)
    theirs, ours = reference().to(kind), create_model(name, num_classes=CLASSES, seed=0).to(kind)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count
    fill(ours, by_our_names(theirs, nn.Module.get_parameter))
    images = torch.rand(4, 1, 28, 28, dtype=kind)
    expected, found = theirs(images), ours(images)
    assert float(expected.detach().std()) > 0.1
    assert float((found - expected).detach().abs().max() / expected.detach().abs().max()) <= tolerance
    for logits in (expected, found):
        F.cross_entropy(logits, torch.arange(4)).backward()
    gradients = by_our_names(theirs, lambda module, part: given(module.get_parameter(part).grad))
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, parameter in file_names(ours, dict(ours.named_parameters())).items():
        gradient = gradients[key].reshape(parameter.shape)
        assert float((given(parameter.grad) - gradient).abs().max()) <= tolerance * largest, key


def given(tensor: Tensor | None) -> Tensor:
    """It is there."""
    assert tensor is not None
    return tensor


@pytest.mark.parametrize(
    ("name", "heads", "qkv", "out", "tokens", "patches"),
    [
        ("vit_mnist_article", (3, 100), 90_900, 30_100, 17, 5_000),
        ("vit_mnist_article_twin", (2, 50), 30_300, 10_100, 17, 5_000),
        ("vit_mnist_fine", (3, 100), 90_900, 30_100, 50, 1_700),
        ("vit_mnist_fine_twin", (4, 25), 30_300, 10_100, 50, 1_700),
    ],
)
def test_parameters_of_each_part(
    name: str, heads: tuple[int, int], qkv: int, out: int, tokens: int, patches: int
) -> None:
    """By hand; a sum does not tell 17 tokens from 50, as patches and positions swap their parts."""
    steps = {step.name: step for step in step_shapes(catalog.find_model(name).config, num_classes=CLASSES)}
    expected = {
        "images": ((1, 1, 28, 28), 0),
        "patches": ((1, tokens - 1, 100), patches),
        "prefix": ((1, tokens, 100), 100),
        "positions": ((1, tokens, 100), 100 * tokens),
        "norm": ((1, tokens, 100), 200),
        "head": ((1, 10), 1_010),
    }
    for block in ("block00", "block01"):
        expected |= {
            f"{block}.norm1": ((1, tokens, 100), 200),
            f"{block}.attention.qkv": ((1, 3, heads[0], tokens, heads[1]), qkv),
            f"{block}.attention.map": ((1, heads[0], tokens, tokens), 0),
            f"{block}.attention": ((1, tokens, 100), out),
            f"{block}.norm2": ((1, tokens, 100), 200),
            f"{block}.mlp": ((1, tokens, 100), 80_500),
        }
    assert {step: (steps[step].shape, steps[step].parameters) for step in expected} == expected


def test_the_rest_of_what_is_printed() -> None:
    """ReLU, GELU, torch's epsilon, pre-norm, the class token read, no dropout."""
    article, twin = (catalog.find_model(f"vit_mnist_article{end}").config for end in ("", "_twin"))
    assert (article.activation, twin.activation) == ("relu", "gelu")  # type: ignore[attr-defined]
    for config in (article, twin):
        kept = {name: getattr(config, name) for name in ("norm", "norm_eps", "final_norm", "pool", "dropout")}
        assert kept == {"norm": "pre", "norm_eps": 1e-5, "final_norm": True, "pool": "class", "dropout": 0.0}
