"""What ``inspect`` finds, against NumPy's SVD, plain formulas and models whose answer is known; and the page
that shows it."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from tests.attribution.test_faithfulness import make, pictures
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.core.errors import UsageError
from tesela.inspection.distance import attention_distance, pairwise, token_rows
from tesela.inspection.filters import decompose, principal_filters
from tesela.inspection.inspect import BUDGET, browsed_queries, inspect
from tesela.inspection.norms import outliers, token_norms
from tesela.inspection.page import inspect_page
from tesela.inspection.positions import position_kernel, position_tables, similarity
from tesela.layers.trace import AttentionRecord
from tesela.models.catalog import find_model
from tesela.models.factory import create_model, create_segmenter


def record(q: Tensor, k: Tensor) -> AttentionRecord:
    return AttentionRecord(name="x", q=q, k=k, v=k, out=q, scale=1.0)


def test_filters_equal_numpys_svd() -> None:
    """Reference: numpy.linalg.svd of the centred rows; the sign by the entry of largest size; shares of the
    variance."""
    weight = torch.randn(40, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    rows = weight.numpy().reshape(40, -1).astype(np.float64)
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(0))
    images, variance = decompose(weight)
    assert images.shape == (28, 3, 4, 5)
    np.testing.assert_allclose(variance.numpy(), (sizes**2 / (sizes**2).sum())[:28], rtol=1e-5)
    for ours, expected in zip(images.flatten(1).numpy(), vectors, strict=False):
        expected = expected * np.sign(expected[np.abs(expected).argmax()])
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert decompose(torch.ones(4, 1, 2, 2))[1].tolist() == [0.0] * 4


def test_filters_of_a_convolutional_stem_and_of_nothing() -> None:
    """The first weight that sees pixels; a model without one is refused."""
    found = principal_filters(create_model("cct_2_3x2_32", num_classes=3, seed=0))
    assert found.images.shape[1] == 3
    with pytest.raises(UsageError):
        principal_filters(nn.Linear(3, 2))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_distance_of_uniform_attention_is_the_mean_of_all_pairs(prefix: int) -> None:
    """Reference: math.hypot over all pairs, the pair with itself included; whatever prefix tokens take."""
    grid, pitch = (4, 7), (16.0, 8.0)
    count = grid[0] * grid[1]
    flat = torch.zeros(1, 2, prefix + count, 3)
    places = [(row * pitch[0], column * pitch[1]) for row in range(grid[0]) for column in range(grid[1])]
    expected = sum(math.hypot(a - c, b - d) for a, b in places for c, d in places) / count**2
    found = attention_distance([record(flat, flat)], grid, prefix, pitch=pitch)
    assert found.flatten().tolist() == pytest.approx([expected] * 2, rel=1e-6)
    assert float(pairwise(grid, pitch).mean()) == pytest.approx(expected)


def test_distance_of_the_identity_is_zero_and_of_a_neighbour_one_patch() -> None:
    """Each patch looks at itself; or at the next one in its row (the last at itself)."""
    same = 400.0 * torch.eye(12)[None, None]
    assert float(
        attention_distance([record(same, torch.eye(12)[None, None])], (3, 4), 0, pitch=(8, 8))
    ) == pytest.approx(0.0, abs=1e-6)
    step = torch.zeros(12, 12)
    for place in range(12):
        step[place, place + (place % 4 < 3)] = 400.0
    found = attention_distance(
        [record(step[None, None], torch.eye(12)[None, None])], (3, 4), 0, pitch=(8, 10)
    )
    assert float(found) == pytest.approx(10 * 9 / 12)


def test_distance_and_rows_of_a_model_equal_dense_attention() -> None:
    """Reference: the whole attention matrix of each record, in float64; two images averaged."""
    model, images = make(registers=2), pictures()
    with undisturbed(model):
        seen = capture(model, images, gradient=False)
    found = inspect(model, images)
    apart = pairwise((4, 6), (4, 4))
    assert found.distance is not None
    assert found.class_attention is not None
    for layer in range(2):
        whole = seen.layers[layer].dense().double()
        part = whole[:, :, 3:, 3:]
        part = part / part.sum(-1, keepdim=True)
        np.testing.assert_allclose(found.distance[layer], (part * apart).sum(-1).mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(found.class_attention[layer], whole[:, :, 0, 3:].mean(0), rtol=1e-4)
        torch.testing.assert_close(
            token_rows(seen.layers, [4, 0], 3)[:, layer].double(),
            whole[:, :, [4, 0], 3:],
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("position", ["learned", "learned2d", "sincos2d"])
def test_similarity_is_the_cosine(position: str) -> None:
    """Reference: the table read by the module itself and the formula for each pair."""
    model: Any = make(position=position)
    found = inspect(model)
    assert found.positions is not None
    assert found.positions.kernel is None
    assert found.positions.similarity is not None
    (table,) = position_tables(model, (4, 6))
    tokens = torch.zeros(1, 25, 24)
    expected = (model.backbone.positions(tokens, (4, 6)) - tokens)[0, 1:].detach()
    torch.testing.assert_close(table, expected)
    for (a, b), (c, d) in (((0, 0), (3, 5)), ((1, 2), (2, 2)), ((3, 0), (3, 0))):
        one, other = expected[a * 6 + b].double(), expected[c * 6 + d].double()
        cosine = float(one @ other / one.norm() / other.norm())
        assert float(found.positions.similarity[0, a, b, c, d]) == pytest.approx(cosine, abs=1e-5)
    assert similarity(torch.zeros(6, 4), (2, 3)).abs().max() == 0


def test_each_block_has_its_table() -> None:
    found = inspect(make(position_at="block"))
    assert found.positions is not None
    assert found.positions.similarity is not None
    assert len(found.positions.similarity) == 2


def test_kernel_of_models_without_a_table() -> None:
    """A blank image leaves nothing but position: none is flat at 0, rotary and relative are not; by hand for
    one layer."""
    for position, flat in (("none", True), ("rotary", False), ("relative", False)):
        model = make(position=position, depth=3)
        found = inspect(model)
        assert found.positions is not None
        assert found.positions.similarity is None
        kernel = found.positions.kernel
        assert kernel is not None
        assert kernel.shape == (3, 7, 11)
        assert (float(kernel.abs().max()) < 1e-4) == flat
    logits = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    ours = position_kernel([record(logits, torch.eye(6)[None, None])], (2, 3), 0)[0]
    centred = (logits - logits.mean(-1, keepdim=True))[0, 0]
    for down in (-1, 0, 1):
        for right in (-2, -1, 0, 1, 2):
            pairs = [
                centred[i, j]
                for i in range(6)
                for j in range(6)
                if j // 3 - i // 3 == down and j % 3 - i % 3 == right
            ]  # every pair with that offset
            assert float(ours[down + 1, right + 2]) == pytest.approx(float(sum(pairs) / len(pairs)), abs=1e-6)


def test_norms_equal_the_features_and_outliers_stick_out() -> None:
    """The last block's norms are those of the tokens that enter the last norm; outliers by hand."""
    model: Any = make(final_norm=False)
    images = pictures()
    with undisturbed(model):
        found = token_norms(model, images, prefix=1)
        features = model.features(images).tokens
    torch.testing.assert_close(found.patches[:, -1], features[:, 1:].norm(dim=-1).detach())
    torch.testing.assert_close(found.prefix[:, -1], features[:, :1].norm(dim=-1).detach())
    assert outliers(torch.tensor([1.0, 1.0, 1.2, 3.1, 2.9])).tolist() == [False, False, False, False, False]
    assert outliers(torch.tensor([1.0, 1.0, 1.0, 3.1, 2.9])).tolist() == [False, False, False, True, False]


def test_browsable_attention_is_the_models_and_stays_small() -> None:
    """Bytes of the page back to weights: the dense attention within half a step; large models get a coarser
    lattice."""
    model, images = make(), pictures()
    with undisturbed(model):
        seen = capture(model, images, gradient=False)
    found = inspect(model, images)
    assert found.browsable is not None
    assert found.browsable.queries == [-1, *range(24)]
    for layer in range(2):
        dense = seen.layers[layer].dense()[..., 1:].numpy()
        ours = found.browsable.maps[:, layer] / 255 * found.browsable.peak[:, layer][..., None]
        assert np.abs(ours - dense).max() <= 0.5 / 255 + 1e-5
    coarse = browsed_queries(seen, 10_000, 1)
    assert coarse[0] == -1
    assert 1 < len(coarse) * 10_000 * 24 <= BUDGET


def test_nothing_is_disturbed() -> None:
    """Weights, flags and random state as they were."""
    model = make(dropout=0.5).train()
    before, random = {name: one.clone() for name, one in model.state_dict().items()}, torch.get_rng_state()
    inspect(model, pictures())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_network_without_attention_shows_its_filters() -> None:
    """A convolutional network: filters, and the page says the rest."""
    model = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Flatten(), nn.LazyLinear(4)).eval()
    model(pictures())
    found = inspect(model, pictures())
    assert found.distance is None
    assert "no attention that can be traced" in inspect_page(found, name="convolutions")


def test_the_page_is_whole() -> None:
    """No address but data:, titles for all sections, one canvas per head and layer, the browser's data
    equal to the arrays; names are escaped."""
    model, images = make(), pictures()
    found = inspect(model, images)
    views = [(f"<b>{place}</b>", np.zeros((16, 24, 3), np.uint8)) for place in range(2)]
    text = inspect_page(found, name="<script>alert(1)</script>", pictures=views)
    page = BeautifulSoup(text, "html.parser")
    assert [one.text for one in page.find_all("h2")] == [
        "Filters",
        "Positions",
        "Attention distance",
        "Class token",
        "Attention of one token",
        "Token norms",
    ]
    assert not page.find_all(["link", "iframe"])
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.find_all("img"))
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//", text)
    assert "<script>alert" not in text
    assert len(page.select("#heads canvas")) == 2 * 3
    assert len(page.select(".filters figure")) == len(found.filters.images) == 24
    source = page.find(id="attention")
    assert source is not None
    data = json.loads(source.text)
    assert data["grid"] == [4, 6]
    assert found.browsable is not None
    assert base64.b64decode(data["images"][1]["maps"]) == found.browsable.maps[1].tobytes()
    for chart in page.find_all("svg"):
        lines = [str(line["class"]) for line in chart.find_all("polyline")]
        assert len(lines) == len(set(lines)), "two lines of one chart have one colour"
    assert data["images"][1]["name"] == "<b>1</b>"
    assert len(page.find_all("circle")) == 6
    assert "needs images" in inspect_page(inspect(model), name="x")


def test_the_number_of_images_is_stated_without_attention_too() -> None:
    model = create_model("resnet20_small", num_classes=3, seed=0).eval()
    assert inspect(model).images == 0
    assert inspect(model, torch.randn(4, 3, 32, 32)).images == 4


def test_a_pyramid_shows_its_filters() -> None:
    """The attentions of SegFormer have several grids, and keys on coarser ones."""
    config = find_model("segformer_b0").config.tiny()
    model = create_segmenter(config, num_classes=3, seed=0).eval()
    found = inspect(model, torch.randn(2, 3, *config.image_size))
    assert found.distance is None and found.images == 2
    assert "no attention that can be traced" in inspect_page(found, name="pyramid")
