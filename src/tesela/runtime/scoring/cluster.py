"""Ray Data as the engine of a scoring: batches are computed by processes of a cluster.

The scoring itself stays on the machine that asked for it: it lists the images, writes the parts and keeps the
journal, so that every row is there once whatever happens to other machines. A batch is what it is on one
machine, so that its results are the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tesela.core.errors import MissingExtraError, TeselaError
from tesela.runtime.predictor import Predictor
from tesela.runtime.stored import StoredImage, read_source, written_source
from tesela.tasks.result import Result

#: Batches that one pass of Ray Data computes, and those of a block, which is computed again where it is lost.
PASS, BLOCK_BATCHES = 1024, 4


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Results of a batch, in the order of its images."""

    results: tuple[Result, ...]


class BatchScorer:
    """A model that answers batches; each process of the cluster makes one.

    Args:
        run: a run or bundle, under a path that all machines see.
        given: arguments of the predictor.
        options: of the task's results.
    """

    def __init__(self, run: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self._predictor, self._options = Predictor(run, **given), dict(options)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The results of one row, whose ``sources`` are written as JSON."""
        sources = [read_source(value) for value in json.loads(row["sources"])]
        found = self._predictor.predict(sources, batch=len(sources), **self._options)
        return {"batch": ScoredBatch(tuple(found))}


class RayStream:
    """Results of images, computed by Ray.

    Args:
        run: a run or bundle.
        predictor: the same, opened here: says what computes.
        threads: that each process computes with; one if None.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, run: str, predictor: Predictor, *, threads: int | None) -> None:
        self._ray = ray_data()
        self._run, self._threads = str(Path(run).absolute()) if Path(run).exists() else run, threads or 1
        self._given: dict[str, Any] = {
            "backend": predictor.backend.name,
            "precision": predictor.backend.precision,
            "threads": self._threads,
            "limits": predictor.limits,
        }

    def __call__(
        self, sources: Iterator[Path | StoredImage], *, batch: int, **options: Any
    ) -> Iterator[Result]:
        """One result for each image, in order.

        Raises:
            TeselaError: what ended a process for a reason of ours, or Ray gave up.
        """
        batches = iter(lambda: [written_source(one) for one in islice(sources, batch)], [])
        while items := [{"sources": json.dumps(one)} for one in islice(batches, PASS)]:
            data = self._ray.data.from_items(items, override_num_blocks=-(-len(items) // BLOCK_BATCHES)).map(
                BatchScorer,
                fn_constructor_args=(self._run, self._given, options),
                num_cpus=self._threads,
                compute=self._ray.data.ActorPoolStrategy(min_size=1, max_size=self._processes()),
            )
            with self._failing():
                for row in data.iter_rows():
                    yield from row["batch"].results

    def _processes(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._threads)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (self._ray.exceptions.RayError, RuntimeError) as error:
            cause = own_error(error)
            if cause is not None:
                raise cause from None
            raise TeselaError(
                f"Ray could not finish: {type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}",
                hint="look at it with 'ray status'; the same command computes the parts that are missing",
            ) from error


def own_error(error: BaseException | None) -> TeselaError | None:
    """The error of this package behind one of Ray's; None where there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, TeselaError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def ray_data() -> Any:
    """Ray with its data sets, connected as of ``connected_ray``.

    Raises:
        MissingExtraError: it is not installed.
    """
    ray = connected_ray("ray.data")
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return ray


def connected_ray(part: str) -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS or one that runs here, else started here.

    Args:
        part: a module of it that is needed, such as ``ray.data``.

    Raises:
        MissingExtraError: it is not installed.
        TeselaError: the cluster cannot be reached.
    """
    import importlib
    import os

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module(part)
    except ImportError:
        raise MissingExtraError("--engine ray", "ray") from None
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
            raise TeselaError(
                f"no connection to the cluster: {reason}",
                hint="check RAY_ADDRESS and 'ray status'; without RAY_ADDRESS Ray is started here",
            ) from error
    return ray
