"""Capture: one forward pass with everything that attribution needs of it.

The fused kernel stays on. Attention is recomputed from q and k for a few rows at a time, so no map of a whole
layer ever exists; without gradients only q and k are kept, copied out of the qkv tensor that would otherwise
stay alive with v. Own models fill a trace; for third-party models torch's functions are watched. Layers are
keyed and ordered by name or by the model's structure, never by the order of calls.
"""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from tesela.attribution.capture.arranged import capture_foreign
from tesela.attribution.capture.record import Capture
from tesela.attribution.capture.traced import capture_short, capture_traced


def capture(model: nn.Module, images: Tensor, *, gradient: bool, whole: bool = True) -> Capture:
    """Run the model once; call it inside ``undisturbed``.

    Args:
        model: a classifier or a segmenter, unwrapped; traced where its ``forward`` takes a trace.
        images: (B, C, H, W) on the model's device.
        gradient: keep the graph, so that logits can be differentiated by attention and images.
        whole: the last layer has all its rows. Without, our own models with a class token compute and keep
            only those that the head reads there, as in an ordinary pass, which is a tenth faster.

    Raises:
        UsageError: its output is neither (B, K) nor (B, K, h, w).
    """
    if "trace" not in inspect.signature(model.forward).parameters:
        return capture_foreign(model, images, gradient)
    found = capture_short(model, images) if not whole and not gradient else None
    found = found or capture_traced(model, images, gradient)
    return found or capture_foreign(model, images, gradient)  # a pyramid: several grids
