"""Heat map of one image for the API by an exported program, whose own outputs need no torch.

A program explains the class that it predicts, with the settings it was exported with.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tesela.attribution.draw.heatmap import stretched
from tesela.attribution.exported import METHODS, predicted_target
from tesela.attribution.methods.table import AUTO_METHOD, BEST, BEST_WALK
from tesela.core.errors import TeselaError, UsageError
from tesela.imaging.preprocess import normalize
from tesela.models.bundle import model_config
from tesela.runtime.backends.base import own_precision
from tesela.runtime.predictor import Predictor
from tesela.serve.looking.explanation import ExplainedImage, heat_picture, label_probabilities
from tesela.tasks.score import Score, ranked


class FixedExplanationError(Exception):
    """A program is asked for another class than it predicts, or for other settings."""


class ProgramExplainer:
    """Maps of a program for the API.

    Args:
        program: that gives maps, in its own precision.

    Attributes:
        methods: method -> output, by the names that the library has for them: the default map is presence,
            and gradient rollout of a segmenter, whose outputs are (B, K, h, w).
    """

    def __init__(self, program: Predictor) -> None:
        spec, self._program = program.info.image, program
        self._backend = cast(Any, program.backend)  # its kind has outputs
        logits = program.outputs([np.zeros((*spec.size, spec.channels), np.uint8)])
        given = {name: output for name, output in METHODS.items() if output in self._backend.outputs}
        default = {BEST if logits.ndim == 2 else BEST_WALK: given.pop(AUTO_METHOD)}
        self.methods: dict[str, str] = default | given

    def explain(
        self,
        view: NDArray[np.uint8],
        size: tuple[int, int],
        *,
        target: int | None,
        method: str,
        top: int,
    ) -> ExplainedImage:
        """Classify and explain one image.

        Args:
            view: the image as the model wants it, (h, w, C), uint8.
            size: (height, width) of the original.
            target: number of the class that is asked for; None for the predicted one.
            method: name of the method.
            top: how many classes to list.

        Raises:
            UsageError: the program has no map of that method.
            FixedExplanationError: it explains another class than ``target``.
        """
        name = next(iter(self.methods)) if method == AUTO_METHOD else method
        if name not in self.methods:
            hint = "use one of " + ", ".join(self.methods)
            raise UsageError(f"the program gives no maps of the method {method}", hint=hint)
        info = self._program.info
        batch = normalize(view[None], info.image)
        index, _, probability = predicted_target(self._program, self._backend.logits(batch)[0])
        if target not in (None, index):
            raise FixedExplanationError
        probabilities, _ = label_probabilities(self._program, batch, size)
        heat = self._backend.output(self.methods[name], batch)[0]
        tokens = patch_values(heat, map_grid(self._program))
        return ExplainedImage(
            method=name,
            target=Score(label=info.labels[index], index=index, probability=probability),
            scores=ranked(probabilities, info.labels, top=top),
            grid=(tokens.shape[0], tokens.shape[1]),
            tokens=[[round(float(value), 5) for value in row] for row in stretched(tokens)],
            prefix_mass=None,
            width=size[1],
            height=size[0],
            heatmap=heat_picture(heat, size, self._program),
        )


def program_explainer(predictor: Predictor) -> ProgramExplainer | None:
    """The explainer of a served program; None if it gives no maps.

    It has the program's own precision: a shorter one changes maps more than answers.
    """
    if METHODS[AUTO_METHOD] not in getattr(predictor.backend, "outputs", ()):
        return None
    if predictor.backend.precision == own_precision(predictor.info):
        return ProgramExplainer(predictor)
    return ProgramExplainer(Predictor(predictor.bundle, backend=predictor.backend.name))


def map_grid(program: Predictor) -> tuple[int, int]:
    """Rows and columns of the patches that a program's map belongs to; its pixels where nobody knows."""
    spec = program.info.image
    try:
        return model_config(program.info).grid(spec.size)
    except TeselaError:  # a family that is not installed
        return spec.size


def patch_values(heat: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Values (rows, columns) of patches, from a map (h, w) that is linear between their centres."""
    down, right = (_between(count, side) for count, side in zip(grid, heat.shape, strict=True))
    values: NDArray[np.float32] = np.linalg.pinv(down) @ heat @ np.linalg.pinv(right).T
    return values


def _between(count: int, side: int) -> NDArray[np.float64]:
    """(side, count), the weights of patches at pixels."""
    places = (np.arange(side) + 0.5) * count / side - 0.5
    return np.stack([np.interp(places, np.arange(count), row) for row in np.eye(count)], axis=1)
