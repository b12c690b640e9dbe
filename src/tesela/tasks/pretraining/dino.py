"""DINO: agreement with a momentum teacher on crops (Caron et al. 2021, arXiv 2104.14294).

Student and teacher are the same network with a projection head; the teacher is a moving average of the
student. The teacher sees two large crops, the student these and small ones, and the student's softmax over
prototypes has to match the teacher's of another crop. Centring and a low temperature of the teacher keep both
from collapsing.

Odd: crops of one size pass the network together, which is what makes a step faster than one pass for each.
The centre and the teacher change after the step alone, so that computing a loss has no effect.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.hardware.distributed import is_shared, local_part, total
from tesela.imaging.spec import ImageSpec
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.tasks.pretraining.attention import attention_picture
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.pretraining.crops import random_crops
from tesela.tasks.pretraining.objective import refuse_frozen
from tesela.tasks.pretraining.outputs import PretextOutputs

#: Large crops, both of which the teacher sees; and the smallest share of the area of a small one.
LARGE, LEAST_AREA = 2, 0.05
#: Width of the projection's narrow end.
BOTTLENECK = 256
#: Small crops have this share of a side, about: 96 of 224 pixels.
SMALL_SIDE = 3 / 7


class Projection(nn.Module):
    """Embeddings (B, D) to cosines with K prototypes: an MLP, a narrow end of length 1, unit prototypes.

    Args:
        width: D.
        hidden: of the two layers between.
        prototypes: K.
    """

    def __init__(self, width: int, hidden: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, BOTTLENECK),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, BOTTLENECK))

    def reset(self, generator: torch.Generator) -> None:
        """Truncated normal weights with a deviation of 0.02, zero biases, random directions."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.prototypes, generator=generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, K), between -1 and 1, in float32."""
        narrow = F.normalize(self.layers(embeddings).float(), dim=1)
        return F.linear(narrow, F.normalize(self.prototypes.float(), dim=1)).float()


class Dino(Objective):
    """Cross-entropy between the softmax of student and teacher on different crops.

    Args:
        config: of the task.
    """

    center: Tensor

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self._config = config
        self._seen: dict[int, list[Tensor]] = {}

    def attach(self, model: nn.Module, spec: ImageSpec, *, seed: int) -> None:
        """Copy the model as the teacher, and create the projections.

        Raises:
            ConfigError: small crops are not of whole patches, or nothing of the model is trained.
        """
        refuse_frozen(model)
        config = self._config
        model.read_with("own")  # type: ignore[operator]
        self.spec, self.small = spec, small_size(model, spec, config)
        self.student_head = Projection(int(model.width), config.projection_width, config.prototypes)  # type: ignore[arg-type]
        self.student_head.reset(torch.Generator().manual_seed(seed + 1))
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.register_buffer("center", torch.zeros(config.prototypes))

    def crops(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Large crops (2 B, C, H, W) and small ones (V B, C, h, w), crop after crop."""
        config, images = self._config, batch.images

        def cut(numbers: range, area: tuple[float, float], size: tuple[int, int]) -> list[Tensor]:
            return [
                random_crops(images, batch.indices, draw, number=number, area=area, size=size, spec=self.spec)
                for number in numbers
            ]

        large = cut(range(LARGE), (config.crop_border, 1.0), self.spec.size)
        least = min(LEAST_AREA, config.crop_border)
        small = cut(range(LARGE, LARGE + config.local_crops), (least, config.crop_border), self.small)
        return torch.cat(large), torch.cat(small) if small else None

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The mean over all pairs of a teacher's crop and another one of the student."""
        large, small = self.crops(batch, draw)
        with torch.no_grad():
            self.teacher.eval()
            taught = self.teacher_head(self.teacher(large))  # (2 B, K)
        embeddings = [model(large), *([model(small)] if small is not None else [])]
        told = self.student_head(torch.cat(embeddings))  # ((2 + V) B, K)
        self._seen.setdefault(draw.step, []).append(batch_mean(taught))
        value = self.agreement(told, taught, len(batch))
        with torch.no_grad():
            shares = ((taught - self.center) / self._config.teacher_temperature).softmax(1)
            entropy = torch.special.entr(batch_mean(shares)).sum()
        return Loss(value, {"teacher_entropy": entropy})

    def agreement(self, told: Tensor, taught: Tensor, count: int) -> Tensor:
        """Cross-entropy of the student's outputs ((2 + V) B, K) with the teacher's (2 B, K), crop after crop.

        By linearity the student's log-probabilities of all crops are summed first, and those of the same crop
        taken out.
        """
        config = self._config
        wanted = ((taught - self.center) / config.teacher_temperature).softmax(1).view(LARGE, count, -1)
        logs = (told / config.student_temperature).log_softmax(1).view(-1, count, told.shape[1])
        same = (wanted * logs[:LARGE]).sum()
        every = (wanted.sum(0) * logs.sum(0)).sum()
        return (same - every) / (count * (LARGE * len(logs) - LARGE))

    def after_step(self, model: nn.Module, *, step: int) -> None:
        """Move the centre and the teacher."""
        config = self._config
        seen = self._seen.get(step - 1, [])
        self._seen.clear()
        with torch.no_grad():
            if seen:
                self.center.lerp_(torch.stack(seen).mean(0).to(self.center), 1 - config.center_momentum)
            for teacher, student in ((self.teacher, model), (self.teacher_head, self.student_head)):
                own = dict(student.named_parameters())
                for name, parameter in teacher.named_parameters():
                    # a rank moves its part where weights are shared out
                    local_part(parameter).lerp_(local_part(own[name]), 1 - config.teacher_momentum)
                statistics = dict(student.named_buffers())
                for name, buffer in teacher.named_buffers():
                    buffer.copy_(statistics[name])

    def outputs(self, model: nn.Module, batch: Batch) -> PretextOutputs:
        """Embeddings of whole images; a loss against a moving teacher would tell nothing."""

        def draw(rows: list[int]) -> list[NDArray[np.uint8]]:
            return attention_picture(model, batch.images[rows], self.spec)

        return PretextOutputs(model(batch.images), None, draw)


def batch_mean(rows: Tensor) -> Tensor:
    """(D,) mean of the rows (N, D) of a batch, on however many ranks it lies."""
    if not is_shared():
        return rows.mean(0)
    return total(rows.sum(0)) / total(rows.new_tensor(float(len(rows))))


def small_size(model: Any, spec: ImageSpec, config: PretrainConfig) -> tuple[int, int]:
    """Height and width of small crops, in whole cells of the network's grid.

    Raises:
        ConfigError: the size that was asked for is not.
    """
    rows, columns = model.grid(spec.size)
    cell = spec.height // rows, spec.width // columns
    if not config.local_size:
        high, wide = (max(1, round(count * SMALL_SIDE)) for count in (rows, columns))
        return high * cell[0], wide * cell[1]
    side = config.local_size
    if side % cell[0] or side % cell[1] or side > min(spec.size):
        raise ConfigError(
            f"small crops of {side} pixels are not whole patches of {cell[0]} x {cell[1]} within the image",
            hint=f"give a multiple of {cell[0]} up to {min(spec.size)}, or 0 for the usual size",
        )
    return side, side
