"""Hybrids against the original JAX code: its parameters under our names give its logits, to 1e-5 relative."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesela.layers.trace import Trace
from tesela.models.factory import empty_model
from tesela.models.hybrid.config import HybridConfig
from tesela.models.tensors import load_weights

Arrays = dict[str, NDArray[np.float32]]

BLOCK = {
    "LayerNorm_0/scale": "norm1.weight",
    "LayerNorm_0/bias": "norm1.bias",
    "LayerNorm_1/scale": "norm2.weight",
    "LayerNorm_1/bias": "norm2.bias",
    "MlpBlock_0/Dense_0/kernel": "mlp.expand.weight",
    "MlpBlock_0/Dense_0/bias": "mlp.expand.bias",
    "MlpBlock_0/Dense_1/kernel": "mlp.contract.weight",
    "MlpBlock_0/Dense_1/bias": "mlp.contract.bias",
    "MultiHeadDotProductAttention_0/out/kernel": "attention.out.weight",
    "MultiHeadDotProductAttention_0/out/bias": "attention.out.bias",
}
PLAIN = {
    "conv_root/kernel": "patches.backbone.root.conv.weight",
    "gn_root/scale": "patches.backbone.root.norm.weight",
    "gn_root/bias": "patches.backbone.root.norm.bias",
    "embedding/kernel": "patches.projection.weight",
    "embedding/bias": "patches.projection.bias",
    "cls": "prefix.class_token",
    "Transformer/posembed_input/pos_embedding": "positions.table",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.linear.weight",
    "head/bias": "head.linear.bias",
}
UNIT = {"conv_proj": "projection", "gn_proj": "projection_norm", "gn": "norm", "conv": "conv"}


def own_name(name: str) -> str:
    if name in PLAIN:
        return PLAIN[name]
    if found := re.fullmatch(r"block(\d+)/unit(\d+)/(conv_proj|gn_proj|conv|gn)(\d?)/(\w+)", name):
        place = f"patches.backbone.stages.{int(found[1]) - 1}.{int(found[2]) - 1}"
        return f"{place}.{UNIT[found[3]]}{found[4]}." + ("bias" if found[5] == "bias" else "weight")
    block, rest = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", name).groups()  # type: ignore[union-attr]
    return f"blocks.{block}.{BLOCK[rest]}"


def own_tensor(name: str, array: NDArray[np.float32]) -> Tensor:
    if name.endswith("out/kernel"):
        array = array.reshape(-1, array.shape[-1]).T  # (H, d, D) to (D, H d)
    elif array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)  # (h, w, in, out) to (out, in, h, w)
    elif name.endswith("kernel"):
        array = array.T
    return torch.from_numpy(np.ascontiguousarray(array))


def own_tensors(arrays: Arrays) -> dict[str, Tensor]:
    tensors = {
        own_name(name): own_tensor(name, array)
        for name, array in arrays.items()
        if not re.search("query|key|value", name)
    }
    for block in sorted({name.split("/")[1] for name in arrays if "encoderblock" in name}):
        place = f"Transformer/{block}/MultiHeadDotProductAttention_0"
        kernels = [arrays[f"{place}/{part}/kernel"] for part in ("query", "key", "value")]
        biases = [arrays[f"{place}/{part}/bias"] for part in ("query", "key", "value")]
        own = f"blocks.{block.removeprefix('encoderblock_')}.attention.qkv"
        tensors[f"{own}.weight"] = torch.from_numpy(
            np.concatenate([kernel.reshape(kernel.shape[0], -1).T for kernel in kernels])
        )
        tensors[f"{own}.bias"] = torch.from_numpy(np.concatenate([bias.ravel() for bias in biases]))
    return tensors


def own_config(path: Path) -> HybridConfig:
    facts = json.loads(path.read_text())
    return HybridConfig(
        image_size=tuple(facts["image_size"]),
        width=facts["hidden_size"],
        depth=facts["num_layers"],
        heads=facts["num_heads"],
        mlp_ratio=facts["mlp_dim"] / facts["hidden_size"],
        activation="gelu_tanh",
        patch_size=tuple(facts["patch_size"]),
        stages=tuple(facts["resnet"]["num_layers"]),
        width_factor=facts["resnet"]["width_factor"],
    )


def test_logits(shared: Path) -> None:
    folder = shared / "golden/jax"
    arrays, golden = (
        dict(np.load(folder / "hybrid_two_stage.npz")),
        np.load(folder / "hybrid_two_stage.io.npz"),
    )
    model = empty_model(own_config(folder / "hybrid_two_stage.json"), num_classes=golden["logits"].shape[1])
    load_weights(model, own_tensors(arrays), source="hybrid_two_stage")
    images = torch.from_numpy(golden["images_nhwc"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits, traced = model.eval()(images), model(images, trace=Trace())
    limit = 1e-5 * float(abs(golden["logits"]).max())
    np.testing.assert_allclose(logits.numpy(), golden["logits"], rtol=0, atol=limit)
    np.testing.assert_allclose(traced.numpy(), golden["logits"], rtol=0, atol=limit)
