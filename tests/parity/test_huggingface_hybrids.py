"""Hugging Face's ViT hybrids against transformers: its BiT network, and a ViT of its on the feature map.

The hybrid itself was taken out of transformers after 4.40; both of its parts are still there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tests.parity.huggingface_models import close

from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.core.errors import WeightsError

BIT = {
    "layer_type": "bottleneck",
    "global_padding": "same",
    "embedding_dynamic_padding": True,
    "embedding_size": 32,
    "hidden_sizes": [128, 256, 512, 1024],
}
VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}


class Hybrid(torch.nn.Module):
    """Both parts, and the names that a hybrid's file has."""

    def __init__(self, depths: list[int], grid: int, bare: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bit = transformers.BitBackbone(
            transformers.BitConfig(**BIT, depths=depths, out_features=[f"stage{len(depths)}"])
        )
        channels = BIT["hidden_sizes"][len(depths) - 1]  # type: ignore[index]
        sizes = {"image_size": grid, "patch_size": 1, "num_channels": channels, "num_labels": 5}
        kind = transformers.ViTModel if bare else transformers.ViTForImageClassification
        self.vit = kind(transformers.ViTConfig(**VIT, **sizes))
        for parameter in self.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        self.eval()

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.vit(self.bit(images).feature_maps[-1])
        logits: torch.Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
        return logits

    def save(self, folder: Path, depths: list[int], grid: int, **changes: Any) -> None:
        """As transformers 4.40 saved a hybrid."""
        self.vit.save_pretrained(folder)
        from safetensors.torch import load_file

        bare = not hasattr(self.vit, "classifier")
        place = f"{'' if bare else 'vit.'}embeddings.patch_embeddings.backbone."
        tensors = load_file(folder / "model.safetensors")
        tensors |= {f"{place}{name}": tensor for name, tensor in self.bit.state_dict().items()}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors"
        )
        config = {
            **VIT,
            "architectures": ["ViTHybridModel" if bare else "ViTHybridForImageClassification"],
            "model_type": "vit-hybrid",
            "patch_size": 1,
            "image_size": grid * (4 << (len(depths) - 1)),
            "backbone_config": {**BIT, "model_type": "bit", "depths": depths},
            "backbone_featmap_shape": [1, BIT["hidden_sizes"][len(depths) - 1], grid, grid],  # type: ignore[index]
            **changes,
        }
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("depths", "grid", "bare"), [([1, 2], 4, False), ([2, 1, 1], 3, False), ([1, 1, 1, 1], 2, True)]
)
def test_we_compute_what_transformers_computes(
    tmp_path: Path, depths: list[int], grid: int, bare: bool
) -> None:
    """<= 1e-5 of the largest logit."""
    theirs = Hybrid(depths, grid, bare)
    theirs.save(tmp_path, depths, grid)
    ours: Any
    ours, info = open_model(tmp_path)
    assert info.architecture == "hybrid"
    side = grid * (4 << (len(depths) - 1))
    assert ours.config.image_size == (side, side)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        close(ours.features(images).tokens if bare else ours(images), theirs(images))


def test_what_is_not_computed_is_refused(tmp_path: Path) -> None:
    theirs = Hybrid([1, 1], 2, False)
    for change, word in (
        ({"backbone_config": {**BIT, "depths": [1, 1], "layer_type": "preactivation"}}, "layer_type"),
        ({"backbone_config": {**BIT, "depths": [1, 1], "output_stride": 4}}, "output_stride"),
        ({"backbone_config": {**BIT, "depths": [1, 1], "global_padding": None}}, "global_padding"),
        ({"backbone_config": {**BIT, "depths": [1, 1], "hidden_sizes": [96, 256]}}, "hidden_sizes"),
        ({"backbone_config": {**BIT, "depths": [1, 1], "out_features": ["stage1"]}}, "out_features"),
        ({"backbone_config": {**BIT, "depths": [1, 1], "out_indices": [1]}}, "out_indices"),
        ({"image_size": 224}, "beside image_size"),
        ({"backbone": "resnet50", "use_timm_backbone": True}, "backbone"),
        ({"backbone_featmap_shape": [1, 1024, 2, 2]}, "backbone_featmap_shape"),
    ):
        theirs.save(tmp_path, [1, 1], 2, **change)
        with pytest.raises(WeightsError, match=word) as caught:
            open_model(tmp_path)
        assert caught.value.hint
    theirs.save(tmp_path, [1, 1], 2)
    with pytest.raises(WeightsError, match="no place for a model of the family 'hybrid'"):
        export_huggingface(tmp_path, tmp_path / "out")
