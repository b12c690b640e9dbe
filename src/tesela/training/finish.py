"""What comes after the last step: adapters merged, bundle written, scores taken, report and card written, ``result.json`` last."""

from __future__ import annotations

import dataclasses
import shutil
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tesela.core.errors import UsageError
from tesela.core.files import write_atomic, write_json
from tesela.core.version import __version__
from tesela.layers.lora import merge_adapters
from tesela.models.bundle import CARD, BundleInfo, describe, write_bundle, write_info
from tesela.reports.card import Card
from tesela.runs.result import RunResult
from tesela.training.state.checkpoint import read_checkpoint
from tesela.training.tuning.adapter import write_adapter
from tesela.training.tuning.features import HeadModel
from tesela.training.tuning.tuning import load_changing

if TYPE_CHECKING:
    from tesela.training.run import Explain
    from tesela.training.sitting import Sitting


class Finish:
    """The end of a run.

    Args:
        sitting: whose loop has made its last step.
    """

    def __init__(self, sitting: Sitting) -> None:
        self.sitting, self.config, self.run = sitting, sitting.config, sitting.run
        self.start, self.source, self.loop = sitting.start, sitting.source, sitting.loop

    def complete(self, explain: Explain | None) -> RunResult:
        """Write everything, and tell what was reached."""
        from tesela.evaluation.evaluate import evaluate_run

        model = self._shipped()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        info = write_bundle(self.run.bundle, model, self._info(model))
        split = next((name for name in ("test", "val") if self.sitting.count(name)), None)
        scores: dict[str, Any] = {}
        if split is not None:
            choices, device = self.sitting.choices, self.sitting.device.type
            scores = evaluate_run(
                self.run.path,
                split=split,
                device=device,
                precision=choices.precision,
                kernel=choices.attention,
                console=self.sitting.console,
            )
            self._describe(info, scores, split)
        if self.config.report:
            self._report(explain)
        shutil.rmtree(self.run.features, ignore_errors=True)
        result = self._result(scores, split)
        write_json(self.run.result, result.mapping())
        return result

    def _shipped(self) -> nn.Module:
        """The whole model, with the weights that are shipped and without adapters, which are kept apart."""
        shipped = self.loop.shipped
        if self.config.patience and self.loop.best_path.exists():
            load_changing(shipped, read_checkpoint(self.loop.best_path)["model"], self.loop.tuning.changing)
        if isinstance(shipped, HeadModel):
            model = self.sitting.model
            model.get_submodule("head").load_state_dict(shipped.head.state_dict())
            return model
        if self.config.tune == "lora":
            write_adapter(self.run.adapter, shipped, base=self.start.origin)
            merge_adapters(shipped)
        return shipped

    def _report(self, explain: Explain | None) -> None:
        from tesela.reports.report import write_report

        try:
            write_report(self.run, explain)
        except UsageError as error:  # a model that cannot be explained has a report all the same
            self.sitting.say(f"the report has no explanations: {error.message}")
            write_report(self.run)

    def _info(self, model: nn.Module) -> BundleInfo:
        provenance = {
            "data": self.source.name,
            "recipe": self.config.recipe,
            "from": self.start.origin,
            "tune": self.config.tune,
            "seed": self.config.seed,
            "steps": self.loop.at.step,
            "tesela": __version__,
            "torch": str(torch.__version__),
        }
        fields = {"provenance": provenance, "license": self.start.license}
        return describe(
            model,  # type: ignore[arg-type]
            name=self.start.name,
            labels=list(self.source.labels),
            image=self.start.spec,
            **fields,
        )

    def _describe(self, info: BundleInfo, scores: dict[str, Any], split: str) -> None:
        """Put the scores into the bundle's config.json and its model card."""
        measured: dict[str, Any] = {
            name: scores[name] for name in ("accuracy", "top5", "ece", "nll") if name in scores
        }
        write_info(self.run.bundle, dataclasses.replace(info, metrics={split: measured}))
        spec = self.start.spec
        card = Card(
            model=self.start.name,
            parameters=self.parameters,
            data=self.source.name,
            images={name: len(items) for name, items in self.source.splits.items()},
            labels=self.source.labels,
            size=(spec.height, spec.width, spec.channels),
            scores=measured,
            split=split,
            steps=self.loop.at.step,
            recipe=self.config.recipe,
            origin=self.start.origin,
            license=self.start.license,
        )
        write_atomic(self.run.bundle / CARD, card.text().encode())

    def _result(self, scores: dict[str, Any], split: str | None) -> RunResult:
        at, choices = self.loop.at, self.sitting.choices
        speed = at.step * choices.batch_size * self.sitting.accumulate / max(self.loop.elapsed(), 1e-9)
        return RunResult(
            run=str(self.run.path),
            accuracy=scores.get("accuracy"),
            top5=scores.get("top5"),
            parameters=self.parameters,
            steps=at.step,
            epochs=round(at.step / choices.steps_per_epoch, 2),
            seconds=round(self.sitting.spent + time.monotonic() - self.sitting.begin, 2),
            images_per_second=round(speed, 1),
            model=self.start.name,
            precision=choices.precision,
            split=split,
            unreadable=self.sitting.left_out,
            trainable=self.sitting.trainable,
        )
