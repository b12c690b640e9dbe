"""Kept outputs of a teacher, for images that are at most flipped.

The teacher looks at every view once before the first step, in the same batches each time, so that a resumed
run has the same bits. Which view a batch shows is read off its pixels: a fingerprint of each view is kept. An
image whose fingerprint is not known is unlike every view; the caller asks the teacher then.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tesela.core.progress import Bar
from tesela.data.augment.flips import View, seen
from tesela.data.batch import Batch
from tesela.data.loader import Loader
from tesela.imaging.spec import ImageSpec

#: Most bytes of outputs that are kept.
KEPT_BYTES = 2 << 30


class KeptOutputs:
    """Outputs (V, N, K) of N images in V views.

    Args:
        images: batches of the images.
        flips: the views.
        spec: how the images are normalised.
        classes: K.
        compute: the teacher's outputs (B, K) of images.
        bar: shows progress, batch by batch.
    """

    def __init__(
        self,
        images: Loader,
        flips: list[View],
        spec: ImageSpec,
        *,
        classes: int,
        compute: Callable[[Tensor], Tensor],
        bar: Bar,
    ) -> None:
        count = len(images.items)
        self._spec = spec
        self._outputs = torch.zeros(len(flips), count, classes)
        self._marks = torch.zeros(len(flips), count, dtype=torch.int64)
        size = spec.channels * spec.height * spec.width
        generator = torch.Generator().manual_seed(0)
        self._keys = torch.randint(-(2**62), 2**62, (size,), generator=generator)
        plain = images.plain()
        for batch in plain.epoch(0):
            for place, view in enumerate(flips):
                shown = seen(batch.images, view)
                self._outputs[place, batch.indices] = compute(shown).cpu()
                self._marks[place, batch.indices] = self._fingerprints(shown)
            bar.advance()
        plain.close()

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Outputs (B, K) on the CPU, zero of unknown images, and whether each image (B,) is known."""
        rows = batch.indices.cpu()
        alike = self._marks[:, rows] == self._fingerprints(batch.images)  # (V, B)
        known = alike.any(0)
        outputs = self._outputs[alike.int().argmax(0), rows]
        return outputs * known[:, None], known

    def _fingerprints(self, images: Tensor) -> Tensor:
        """(B,) 64-bit sums of the pixels' values in 0..255, each times a number of its place, on the CPU."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)
            for values in (self._spec.mean, self._spec.std)
        )
        pixels = ((images.float() * std + mean) * 255).round().long().flatten(1)
        self._keys = self._keys.to(images.device)
        return (pixels * self._keys).sum(1).cpu()


def kept_bytes_of(images: int, views: int, classes: int) -> int:
    """Bytes of outputs and fingerprints."""
    return views * images * (4 * classes + 8)
