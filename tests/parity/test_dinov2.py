"""The official DINOv2 checkpoints at another image size, against their own code's interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.parity.timm_reference import logits, random_tensors
from torch import Tensor

from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_foreign, open_model
from tesela.layers.position.embedding import interpolate_positions

SIDE = 9


def interpolated(table: Tensor, rows: int, columns: int, *, registers: bool) -> Tensor:
    """Patches' positions (1, n, D) as dinov2/models/vision_transformer.py computes them.

    The hub's entries with registers have interpolate_antialias=True and interpolate_offset=0.0, the others
    False and 0.1.
    """
    grid = table.reshape(1, SIDE, SIDE, -1).permute(0, 3, 1, 2)
    if registers:
        found = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    else:
        scale = (float(rows + 0.1) / SIDE, float(columns + 0.1) / SIDE)
        found = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
    assert found.shape[2:] == (rows, columns)
    return found.permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize("registers", [True, False])
@pytest.mark.parametrize("size", [(24, 24), (64, 64), (28, 48)])
def test_positions_and_tokens_at_other_sizes(registers: bool, size: tuple[int, int], tmp_path: Path) -> None:
    more: dict[str, Any] = {"register_tokens": (1, 4, 128)} if registers else {}
    tensors = random_tensors(grid=(SIDE, SIDE), mask_token=(1, 128), head=False, scale=True, **more)
    torch.save(tensors, tmp_path / "m.pth")
    rows, columns = size[0] // 4, size[1] // 4
    table = tensors["pos_embed"]
    wanted = interpolated(table[:, 1:], rows, columns, registers=registers)
    native: Any = open_model(tmp_path / "m.pth")[0]
    resized: Any = open_model(tmp_path / "m.pth", image_size=size)[0]
    torch.testing.assert_close(resized.backbone.positions.table[:, 1:], wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(resized.backbone.positions.table[:, :1], table[:, :1])
    images = torch.randn(1, 3, *size)
    same = {**tensors, "pos_embed": torch.cat([table[:, :1], wanted], 1), "head.weight": torch.eye(128)}
    if registers:  # they have no positions there
        same["reg_token"] = same.pop("register_tokens")
        same["pos_embed"] = torch.cat([table[:, :1], torch.zeros(1, 4, 128), wanted], 1)
    with torch.no_grad():
        for model in (native, resized):
            found = model.features(images).tokens[:, 0].double()
            torch.testing.assert_close(found, logits(same, images, heads=2), rtol=1e-4, atol=1e-4)


def test_one_axis_of_a_table_with_the_offset() -> None:
    """Bicubic at (x + 0.5) / scale - 0.5 with scale 2.1 / 4: worked out from the kernel with a = -0.75."""
    table = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (1.25 * x - 2.25) * x * x + 1
        return ((-0.75 * x + 3.75) * x - 6) * x + 3 if x < 2 else 0.0

    wanted = []
    for place in range(2):
        at = (place + 0.5) / (2.1 / 4) - 0.5
        near = [int(at // 1) + step for step in (-1, 0, 1, 2)]
        wanted.append(sum(table[0, min(max(i, 0), 3), 0].item() * kernel(at - i) for i in near))
    found = interpolate_positions(table, (4, 1), (2, 1), prefix=0, mode="bicubic_offset")
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_its_images_and_its_way_to_transformers(tmp_path: Path) -> None:
    made: dict[str, Any] = {
        "grid": (SIDE, SIDE),
        "hidden": 256,
        "mask_token": (1, 128),
        "head": False,
        "scale": True,
    }
    torch.save(random_tensors(**made), tmp_path / "m.pth")
    opened = open_foreign(tmp_path / "m.pth")
    assert opened.info.image.mean == (0.485, 0.456, 0.406) and opened.info.image.resize == "crop"
    assert opened.info.model["position_mode"] == "bicubic_offset"
    assert not any("assumed" in remark for remark in opened.remarks)
    report = export_huggingface(tmp_path / "m.pth", tmp_path / "hf")
    assert report.proved[1].startswith("in transformers")
    assert any("without the model's offset" in remark for remark in report.remarks)
