"""A served model: loaded once, with its queue, threads and explainer.

Decoding runs in processes (``decoding``), the network in the batcher's own thread, explanations in another,
so that none of them holds up the event loop or another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import UsageError
from tesela.core.failpoint import failpoint
from tesela.runtime.backends.base import usable
from tesela.runtime.predictor import Predictor
from tesela.serve.config import ServeConfig
from tesela.serve.engine.batching import Batcher, Gate
from tesela.serve.engine.decoding import Decoders
from tesela.serve.errors import RefusedError
from tesela.serve.looking.explanation import ExplainedImage, explain_image
from tesela.serve.metrics import ServerMetrics
from tesela.tasks.result import Result
from tesela.tasks.score import label_index

_Answer = TypeVar("_Answer")


class ServedModel:
    """One model behind the API.

    Args:
        name: what clients call it.
        predictor: the loaded bundle.
        config: the limits.
        decoders: who decodes images, for all models.
        metrics: where batches are counted.
    """

    def __init__(
        self,
        name: str,
        predictor: Predictor,
        *,
        config: ServeConfig,
        decoders: Decoders,
        metrics: ServerMetrics,
    ) -> None:
        self.name = name
        self.predictor = predictor
        self.network = network_of(predictor)
        self.gate = Gate(config.queue)
        self.explain_gate = Gate(config.explain_queue)
        self.batcher: Batcher[NDArray[np.uint8], NDArray[np.float32]] = Batcher(
            self._compute, max_batch=config.max_batch, on_batch=metrics.batches.labels(name).observe
        )
        self._decoders = decoders
        self._seconds = config.deadline
        self._answering = ThreadPoolExecutor(2, thread_name_prefix="tesela-answer")
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="tesela-explain")
        metrics.waiting.labels(name).set_function(lambda: self.batcher.waiting)

    async def predict(self, data: bytes, **options: Any) -> Result:
        """What the model's task says about an encoded image."""
        deadline = time.monotonic() + self._seconds
        with self.gate.enter():
            pixels, size = await self._decoders.view(data, self.predictor.info.image, deadline=deadline)
            row = await self.batcher.submit(pixels, deadline=deadline)
            task, info = self.predictor.task, self.predictor.info
            return await self._in_time(
                self._answering, deadline, lambda: task.decode(row[None], info, sizes=[size], **options)[0]
            )

    async def explain(self, data: bytes, *, target: str | None, method: str, top: int) -> ExplainedImage:
        """The heat map of an encoded image for a class, by name or number.

        The predicted one where ``target`` is None.
        """
        if self.network is None:
            raise RefusedError("explain_unavailable")
        index = target_index(target, self.predictor.info.labels)
        deadline = time.monotonic() + self._seconds
        with self.explain_gate.enter():
            view, size = await self._decoders.view(data, self.predictor.info.image, deadline=deadline)
            try:
                return await self._in_time(
                    self._explaining,
                    deadline,
                    lambda: explain_image(
                        self.network,
                        self.predictor,
                        view,
                        size,
                        target=index,
                        method=method,
                        top=top,
                    ),
                )
            except UsageError:  # the method needs attention and the network has none
                raise RefusedError("explain_unavailable") from None

    def describe(self) -> dict[str, Any]:
        """The model for ``GET /v1/models``."""
        info = self.predictor.info
        return {
            "name": self.name,
            "task": self.predictor.task.name,
            "architecture": info.architecture,
            "backend": self.predictor.backend.name,
            "labels": list(info.labels),
            "height": info.image.height,
            "width": info.image.width,
            "channels": info.image.channels,
            "explainable": self.network is not None,
            "license": info.license or "unknown",
        }

    def start(self) -> None:
        """Begin to work; call it inside the event loop."""
        self.batcher.start()

    async def stop(self) -> None:
        """Finish what was accepted and end the threads."""
        await self.batcher.stop()
        self._answering.shutdown(wait=True)
        self._explaining.shutdown(wait=True)

    def _compute(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        failpoint("serve.batch")
        return list(self.predictor.outputs(images))

    async def _in_time(
        self, pool: ThreadPoolExecutor, deadline: float, call: Callable[[], _Answer]
    ) -> _Answer:
        """Run ``call`` in a pool, unless its deadline has passed when its turn comes."""

        def run() -> _Answer:
            if time.monotonic() > deadline:
                raise RefusedError("deadline")
            return call()

        return await asyncio.get_running_loop().run_in_executor(pool, run)


def network_of(predictor: Predictor) -> Any:
    """The torch network for explanations: the predictor's own, else a second one from the same bundle.

    None if there is none.
    """
    if predictor.network is not None:
        return predictor.network
    if "torch" not in usable(predictor.bundle):
        return None
    return Predictor(predictor.bundle, backend="torch").network


def target_index(target: str | None, labels: Sequence[str]) -> int | None:
    """The number of a class that is given by name or, failing that, by number.

    Raises:
        RefusedError: no class has that name or number.
    """
    if target is None:
        return None
    index = label_index(target, labels, len(labels))
    if index is None:
        raise RefusedError("unknown_class")
    return index
