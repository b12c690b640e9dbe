"""A served model: loaded once, with its queue, threads and explainer.

Decoding runs in processes (``decoding``), the network in the batcher's own thread, explanations in another,
so that none of them holds up the event loop or another.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tesela.core.config import to_mapping
from tesela.core.errors import UsageError
from tesela.core.failpoint import failpoint
from tesela.imaging.png import encode_png
from tesela.runtime.backends.base import usable
from tesela.runtime.predictor import Predictor
from tesela.serve.config import ServeConfig
from tesela.serve.engine.batching import Batcher
from tesela.serve.engine.decoding import Decoders
from tesela.serve.engine.gate import Gate
from tesela.serve.errors import RefusedError
from tesela.serve.looking.attention import HeadAttention, NoAttentionError, OutOfRangeError, attention_of
from tesela.serve.looking.examples import example_images
from tesela.serve.looking.explanation import ExplainedImage, explain_image
from tesela.serve.looking.facts import NetworkFacts, card_text, network_facts
from tesela.serve.looking.program import FixedExplanationError, program_explainer
from tesela.serve.metrics import ServerMetrics
from tesela.tasks.result import Result
from tesela.tasks.score import label_index

#: Settings of an explanation, as parameters of ``/v1/explain``.
SETTINGS = ("layer", "head", "discard", "residual")
#: Seconds that a model may take to warm up.
WARM_SECONDS = 5.0
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
        self.program = program_explainer(predictor) if self.network is None else None
        self.gate = Gate(config.queue, seconds=config.deadline)
        self.explain_gate = Gate(config.explain_queue, seconds=config.deadline)
        self.examples = example_images(getattr(predictor, "bundle", None), predictor.info.image)
        self.example_files = [encode_png(image, level=6) for image in self.examples if config.examples]
        self._facts: NetworkFacts | None = None
        self._gathering = asyncio.Lock()
        self.batcher: Batcher[NDArray[np.uint8], NDArray[np.float32]] = Batcher(
            self._compute, max_batch=config.max_batch, on_batch=metrics.batches.labels(name).observe
        )
        self._decoders = decoders
        self._seconds, self._most = config.deadline, config.max_batch
        self._answering = ThreadPoolExecutor(2, thread_name_prefix="tesela-answer")
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="tesela-explain")
        metrics.waiting.labels(name).set_function(lambda: self.batcher.waiting)

    async def predict(self, data: bytes, **options: Any) -> Result:
        """What the model's task says about an encoded image."""
        deadline = time.monotonic() + self._seconds
        with self.gate.enter():
            spec, aside = self.predictor.info.image, self.gate.aside
            pixels, size = await self._decoders.view(data, spec, deadline=deadline, aside=aside)
            row = await self.batcher.submit(pixels, deadline=deadline)
            task, info = self.predictor.task, self.predictor.info
            return await self._in_time(
                self._answering, deadline, lambda: task.decode(row[None], info, sizes=[size], **options)[0]
            )

    async def explain(
        self,
        data: bytes,
        *,
        target: str | None,
        method: str,
        top: int,
        region: tuple[int, int, int, int] | None,
        options: Mapping[str, Any],
    ) -> ExplainedImage:
        """The heat map of an encoded image for a class, by name or number.

        The predicted one where ``target`` is None; of a segmenter for a region, where one is given.
        """
        program = self.program
        if self.network is None and program is None:
            raise RefusedError("no_maps")
        index = target_index(target, self.predictor.info.labels)
        deadline = time.monotonic() + self._seconds

        def explained() -> ExplainedImage:
            if program is None:
                return explain_image(
                    self.network,
                    self.predictor,
                    view,
                    size,
                    target=index,
                    method=method,
                    top=top,
                    region=region,
                    options=options,
                )
            if region is not None or any(value is not None for value in options.values()):
                raise FixedExplanationError
            return program.explain(view, size, target=index, method=method, top=top)

        with self.explain_gate.enter():
            spec, aside = self.predictor.info.image, self.explain_gate.aside
            view, size = await self._decoders.view(data, spec, deadline=deadline, aside=aside)
            try:
                return await self._in_time(self._explaining, deadline, explained)
            except FixedExplanationError:
                raise RefusedError("fixed_explanation") from None
            except UsageError:
                able = (await self.facts()).methods  # a method that works has an option that does not
                raise RefusedError(
                    "bad_parameter"
                    if method in able or (able and method == "auto")
                    else "explain_unavailable"
                ) from None

    async def attention(self, data: bytes, *, patch: tuple[int, int] | None) -> HeadAttention:
        """Attention of what the head reads, or of a patch (row, column), on an encoded image."""
        if self.network is None:
            raise RefusedError("explain_unavailable")
        deadline = time.monotonic() + self._seconds
        with self.explain_gate.enter():
            spec, aside = self.predictor.info.image, self.explain_gate.aside
            view, _ = await self._decoders.view(data, spec, deadline=deadline, aside=aside)
            try:
                return await self._in_time(
                    self._explaining, deadline, lambda: attention_of(self.network, view, spec, patch=patch)
                )
            except NoAttentionError:
                raise RefusedError("no_attention") from None
            except OutOfRangeError:
                raise RefusedError("bad_parameter") from None

    async def facts(self) -> NetworkFacts:
        """What its network says of itself; gathered once."""
        if self.network is None:
            return NetworkFacts(methods=() if self.program is None else tuple(self.program.methods))
        async with self._gathering:
            if self._facts is None:
                self._facts = await self._in_time(
                    self._explaining, time.monotonic() + self._seconds, self._gather
                )
        return self._facts

    def _gather(self) -> NetworkFacts:
        spec, task = self.predictor.info.image, self.predictor.task
        blank = np.zeros((1, *spec.size, spec.channels), np.uint8)
        outputs = self.predictor.outputs(list(blank))
        explained = outputs.ndim == 4 or task.probabilities(outputs) is not None
        found = network_facts(self.network, spec, self.examples, explained=explained)
        options = ("target", *SETTINGS, *(("region",) if outputs.ndim == 4 else ()))
        return replace(found, options=options if found.methods else ())

    async def detail(self) -> dict[str, Any]:
        """The model for ``GET /v1/models/NAME``."""
        info, facts = self.predictor.info, await self.facts()
        sheets = {"filters": facts.filters, "positions": facts.positions}
        return {
            **self.describe(),
            "image": to_mapping(info.image),
            "card": card_text(getattr(self.predictor, "bundle", None)),
            "parameters": facts.parameters,
            "metrics": info.metrics,
            "colors": list(info.colors),
            "methods": list(facts.methods),
            "explain_options": list(facts.options),
            "layers": facts.layers,
            "heads": facts.heads,
            "grid": facts.grid,
            "examples": len(self.example_files),
            "inspection": None
            if self.network is None
            else {
                "distance": facts.distance,
                **{name: sheet and base64.b64encode(sheet).decode("ascii") for name, sheet in sheets.items()},
            },
        }

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
            "explainable": self.network is not None or self.program is not None,
            "license": info.license or "unknown",
        }

    async def start(self) -> None:
        """Compute empty images, so that memory and speed are those of later batches; then begin to work."""
        await self.batcher.prepare(self._warm_up)
        self.batcher.start()

    async def stop(self) -> None:
        """Finish what was accepted and end the threads."""
        await self.batcher.stop()
        self._answering.shutdown(wait=True)
        self._explaining.shutdown(wait=True)

    def _warm_up(self) -> None:
        """Batches of 1, 2, 4 and so on up to the largest, as far as the time goes."""
        spec, most = self.predictor.info.image, self._most
        blank = np.zeros((most, *spec.size, spec.channels), np.uint8)
        size, begun, took = 1, time.monotonic(), 0.0
        while time.monotonic() - begun + 2 * took < WARM_SECONDS:
            before = time.monotonic()
            self.predictor.outputs(list(blank[:size]))
            took = time.monotonic() - before
            if size == most:
                break
            size = min(2 * size, most)

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
