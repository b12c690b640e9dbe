"""The paper's JAX network once more, from an .npz's arrays alone, in float64 with torch's plain functions;
checked on the golden files.

Written from the paper's description and the names in the files; shares nothing with the package.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Arrays = Mapping[str, Tensor]


def logits(arrays: Mapping[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Logits (B, K) of NHWC images."""
    p = {name: torch.from_numpy(np.asarray(array)).double() for name, array in arrays.items()}
    x = torch.from_numpy(images).double().permute(0, 3, 1, 2)
    if "conv_root/kernel" in p:
        x = _backbone(p, x)
    kernel = p["embedding/kernel"].permute(3, 2, 0, 1)
    x = F.conv2d(x, kernel, p["embedding/bias"], stride=kernel.shape[2:]).flatten(2).mT
    if "cls" in p:
        x = torch.cat([p["cls"].expand(len(x), -1, -1), x], 1)
    if "Transformer/posembed_input/pos_embedding" in p:
        x = x + p["Transformer/posembed_input/pos_embedding"]
    for index in range(len({name.split("/")[1] for name in p if "encoderblock" in name})):
        x = _block(p, f"Transformer/encoderblock_{index}/", x)
    x = _norm(p, "Transformer/encoder_norm", x)
    x = x[:, 0] if "cls" in p else x.mean(1)
    if "pre_logits/kernel" in p:
        x = torch.tanh(x @ p["pre_logits/kernel"] + p["pre_logits/bias"])
    return np.asarray(x @ p["head/kernel"] + p["head/bias"])


def _norm(p: Arrays, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)


def _block(p: Arrays, name: str, x: Tensor) -> Tensor:
    mha = next(key.rsplit("/", 2)[0] for key in p if key.startswith(name) and key.endswith("query/kernel"))
    mlp = next(key.rsplit("/", 2)[0] for key in p if key.startswith(name) and key.endswith("Dense_0/kernel"))
    norms = sorted({key.rsplit("/", 1)[0] for key in p if key.startswith(f"{name}LayerNorm")})
    y = _norm(p, norms[0], x)
    q, k, v = (
        torch.einsum("bnd,dhe->bhne", y, p[f"{mha}/{part}/kernel"]) + p[f"{mha}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    x = x + torch.einsum("bhne,hed->bnd", weights @ v, p[f"{mha}/out/kernel"]) + p[f"{mha}/out/bias"]
    y = _norm(p, norms[1], x)
    y = F.gelu(y @ p[f"{mlp}/Dense_0/kernel"] + p[f"{mlp}/Dense_0/bias"], approximate="tanh")
    return x + y @ p[f"{mlp}/Dense_1/kernel"] + p[f"{mlp}/Dense_1/bias"]


def _padded(x: Tensor, size: int, stride: int, value: float = 0.0) -> Tensor:
    """Padding "SAME": ceil(n / stride) results, the odd pixel after."""
    pads = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[2:]]
    return F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2), value=value)


def _conv(p: Arrays, name: str, x: Tensor, stride: int = 1) -> Tensor:
    w = p[f"{name}/kernel"]
    w = w - w.mean((0, 1, 2))
    w = w / (w.square().mean((0, 1, 2)).sqrt() + 1e-5)
    return F.conv2d(_padded(x, w.shape[0], stride), w.permute(3, 2, 0, 1), stride=stride)


def _group(p: Arrays, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)


def _backbone(p: Arrays, x: Tensor) -> Tensor:
    x = _group(p, "gn_root", _conv(p, "conv_root", x, 2)).relu()
    x = F.max_pool2d(_padded(x, 3, 2, -torch.inf), 3, 2)
    units = sorted({tuple(key.split("/")[:2]) for key in p if key.startswith("block")})
    for block, unit in units:
        name, stride = f"{block}/{unit}", 2 if unit == "unit1" and block != "block1" else 1
        skip = (
            _group(p, f"{name}/gn_proj", _conv(p, f"{name}/conv_proj", x, stride))
            if f"{name}/conv_proj/kernel" in p
            else x
        )
        y = _group(p, f"{name}/gn1", _conv(p, f"{name}/conv1", x)).relu()
        y = _group(p, f"{name}/gn2", _conv(p, f"{name}/conv2", y, stride)).relu()
        x = (skip + _group(p, f"{name}/gn3", _conv(p, f"{name}/conv3", y))).relu()
    return x


def random_arrays(
    *,
    grid: tuple[int, int],
    patch: tuple[int, int] = (8, 8),
    stages: tuple[int, ...] | None = None,
    factor: float = 0.5,
    width: int = 32,
    heads: int = 4,
    hidden: int = 48,
    depth: int = 2,
    classes: int = 6,
    token: bool = True,
    positions: bool = True,
    representation: int = 0,
    published: bool = False,
    channels: int = 3,
) -> dict[str, np.ndarray]:
    """The arrays of a network of that kind, none of them zero."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, *shape: int, bias: tuple[int, ...]) -> None:
        shapes.update({f"{name}/kernel": shape, f"{name}/bias": bias})

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}/scale": (size,), f"{name}/bias": (size,)})

    features = channels
    if stages is not None:
        features = int(64 * factor)
        shapes["conv_root/kernel"] = (7, 7, channels, features)
        norm("gn_root", features)
        for stage, units in enumerate(stages):
            inner = int(64 * factor) * 2**stage
            for unit in range(units):
                name = f"block{stage + 1}/unit{unit + 1}"
                if unit == 0:
                    shapes[f"{name}/conv_proj/kernel"] = (1, 1, features, 4 * inner)
                    norm(f"{name}/gn_proj", 4 * inner)
                for index, kernel in enumerate(
                    [(1, 1, features, inner), (3, 3, inner, inner), (1, 1, inner, 4 * inner)], 1
                ):
                    shapes[f"{name}/conv{index}/kernel"] = kernel
                    norm(f"{name}/gn{index}", kernel[3])
                features = 4 * inner
    dense("embedding", *patch, features, width, bias=(width,))
    if token:
        shapes["cls"] = (1, 1, width)
    if positions:
        shapes["Transformer/posembed_input/pos_embedding"] = (1, token + grid[0] * grid[1], width)
    each = width // heads
    for index in range(depth):
        block = f"Transformer/encoderblock_{index}/"
        mha, mlp = (
            f"{block}MultiHeadDotProductAttention_{int(published)}",
            f"{block}MlpBlock_{3 if published else 0}",
        )
        for part in ("query", "key", "value"):
            dense(f"{mha}/{part}", width, heads, each, bias=(heads, each))
        dense(f"{mha}/out", heads, each, width, bias=(width,))
        dense(f"{mlp}/Dense_0", width, hidden, bias=(hidden,))
        dense(f"{mlp}/Dense_1", hidden, width, bias=(width,))
        norm(f"{block}LayerNorm_0", width)
        norm(f"{block}LayerNorm_{2 if published else 1}", width)
    norm("Transformer/encoder_norm", width)
    if representation:
        dense("pre_logits", width, representation, bias=(representation,))
    if classes:
        dense("head", representation or width, classes, bias=(classes,))
    scales = {
        name: 1.0 / np.sqrt(np.prod(shape[:-1])) if name.endswith("kernel") else 0.3
        for name, shape in shapes.items()
    }
    return {
        name: (draw.normal(size=shape) * scales[name] + (1.0 if name.endswith("scale") else 0.0)).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }
