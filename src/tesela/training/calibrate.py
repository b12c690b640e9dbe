"""Calibration of a trained classifier: one factor for all logits, fitted on validation.

The factor goes into the last layer's weights, so that whatever is made of the model afterwards (an ONNX
graph, another library's checkpoint, a server's answer) gives the same calibrated probabilities. The order of
the classes, and so the accuracy, stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tesela.evaluation.scoring import evaluation_mode
from tesela.hardware.autocast import autocast
from tesela.metrics.calibration import fit_temperature
from tesela.models.model import Model
from tesela.training.decide import Decisions
from tesela.training.prepare import Prepared

#: With fewer validation images a temperature would be a guess.
LEAST_IMAGES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a model was calibrated.

    Attributes:
        temperature: logits were divided by it.
        images: validation images that it was fitted on.
    """

    temperature: float
    images: int


def calibrate(prepared: Prepared, decisions: Decisions, model: Model) -> Calibration | None:
    """Fit the temperature and scale the head of ``model``; None where that is off or not possible.

    Raises:
        DataError: an image became unreadable.
    """
    loader, scale = decisions.validation, getattr(model.head, "scale", None)
    wanted = prepared.config.calibrate and prepared.task.calibrates and scale is not None
    if not wanted or loader is None or loader.num_images < LEAST_IMAGES:
        return None
    choices = decisions.choices
    logits: list[Any] = []
    targets: list[Any] = []
    with evaluation_mode(model, choices.attention), torch.inference_mode():
        for batch in loader.epoch(0):
            with autocast(prepared.device, choices.precision):
                logits.append(model(batch.images.to(prepared.device)).float().cpu().numpy())
            targets.append(batch.targets.cpu().numpy())
    loader.close()
    temperature = fit_temperature(np.concatenate(logits), np.concatenate(targets))
    assert scale is not None
    scale(1 / temperature)
    return Calibration(temperature=temperature, images=loader.num_images)
