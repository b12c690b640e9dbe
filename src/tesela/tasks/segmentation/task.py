"""Segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.data.masks.coding import palette
from tesela.data.masks.targets import MaskTargets
from tesela.imaging.mask import IGNORE, resize_mask
from tesela.imaging.preprocess import fit_image, normalize, unfit
from tesela.metrics.segmentation import iou_of
from tesela.tasks.segmentation.array_scorer import ArraySegmentationScorer
from tesela.tasks.segmentation.mask import mask_of
from tesela.tasks.segmentation.result import Segmentation, segmentation
from tesela.tasks.segmentation.windows import flipped_mean, sliding_logits
from tesela.tasks.task import ArrayScorer, Rows, Scorer, Task, known_places

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from tesela.data.batch import Batch
    from tesela.data.source import Source
    from tesela.data.targets import Targets
    from tesela.imaging.spec import ImageSpec
    from tesela.models.backbone import Backbone
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model
    from tesela.page.section import Section
    from tesela.tasks.material import Material
    from tesela.tasks.segmentation.config import SegmentationConfig
    from tesela.tasks.segmentation.objective import MaskLoss

#: The longer side of a mask that is kept for the report.
KEPT_SIDE = 192
WORST = 12
#: Validation images whose masks are drawn after each epoch.
DRAWN = 21


class SegmentationTask(Task):
    """A class for each pixel, by cross-entropy, Dice and focal loss."""

    name = "segment"
    score = "mean_iou"
    headline = ("mean_iou", "pixel_accuracy")
    noun = "image segmenter"
    pipeline_tag = "image-segmentation"
    curves = MappingProxyType({"mean_iou": "Mean IoU", "pixel_accuracy": "Pixel accuracy"})
    card_scores = MappingProxyType(
        {
            "mean_iou": "mean IoU",
            "pixel_accuracy": "pixel accuracy",
            "dice": "mean Dice",
            "boundary_iou": "boundary IoU",
        }
    )
    infer_options = frozenset({"windows", "flip"})
    has_decoder = whole_images = True
    automatic_model = "segformer_b0"

    def suits(self, source: Source) -> bool:
        """Whether each image has a mask."""
        return source.masks is not None

    def targets(self, source: Source) -> MaskTargets:
        """The masks."""
        from tesela.core.errors import DataError

        if source.masks is None:
            raise DataError(
                f"{source.name} has no masks",
                hint="segmentation needs a folder of images and one of masks, such as images/ and masks/",
            )
        return MaskTargets(source.masks)

    def objective(self, config: SegmentationConfig, targets: Targets) -> MaskLoss:
        """The weighted sum of losses."""
        from tesela.tasks.segmentation.objective import MaskLoss, weights_of

        weights = None
        if isinstance(targets, MaskTargets) and "train" in targets.pixels:
            weights = weights_of(targets.pixels["train"].tolist(), config.class_weights)
        return MaskLoss(config, weights)

    def scorer(self, labels: Sequence[str], **options: Any) -> Scorer:
        """Mean IoU, Dice, boundary IoU, block artefacts."""
        from tesela.tasks.segmentation.scorer import SegmentationScorer

        return SegmentationScorer(labels, **options)

    def array_scorer(self, info: BundleInfo) -> ArrayScorer:  # type: ignore[override]
        """The same scores."""
        return ArraySegmentationScorer(info)

    def validation_scorer(self, targets: Targets, places: Sequence[int]) -> Scorer:
        """Scores in the model's view; masks of ``DRAWN`` images, evenly spread, are drawn."""
        chosen = np.unique(np.linspace(0, max(len(places) - 1, 0), min(DRAWN, len(places))).astype(int))
        drawn = [places[int(index)] for index in chosen] if len(places) else []
        return self.scorer(targets.labels, drawn=drawn, colours=getattr(targets, "colours", ()))

    def scorer_facts(self, model: Any, info: BundleInfo) -> dict[str, Any]:
        """View and patch of the model; evaluation counts boundaries too."""
        rows, columns = model.grid(info.image.size)
        patch = info.image.height // rows, info.image.width // columns
        return {"spec": info.image, "patch": patch, "boundary": True}

    def decode(
        self,
        outputs: NDArray[np.floating[Any]],
        info: BundleInfo,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        **options: Any,
    ) -> Sequence[Segmentation]:
        """Masks at the images' own sizes, from logits (B, K, h, w)."""
        del options
        colours = colours_of(info)
        sizes = sizes or [info.image.size] * len(outputs)
        return [
            segmentation(mask_of(logits, size, info), tuple(info.labels), colours)
            for logits, size in zip(outputs, sizes, strict=True)
        ]

    def infer(  # type: ignore[override]  # takes what infer_options names
        self,
        compute: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        image: NDArray[np.uint8],
        spec: ImageSpec,
        *,
        windows: bool = False,
        flip: bool = False,
    ) -> NDArray[np.float32]:
        """Logits (K, H, W) of one image, by windows or as a whole, and averaged with its mirror image's."""
        if windows:
            return sliding_logits(compute, normalize(image[None], spec)[0], view=spec.size, flip=flip)
        logits = flipped_mean(compute, normalize(fit_image(image, spec)[None], spec), flip=flip)[0]
        size = image.shape[0], image.shape[1]
        return np.stack([unfit(plane, size, spec) for plane in logits])

    def unreadable(self) -> Segmentation:
        """No mask."""
        return Segmentation()

    def build(
        self, backbone: Backbone[Any], labels: Sequence[str], *, decoder: Mapping[str, Any] | None = None
    ) -> Model:
        """A segmenter with that decoder."""
        from tesela.models.segmenter.segmenter import Segmenter

        return Segmenter(backbone, num_classes=len(labels), decoder=decoder)

    def adapt(
        self,
        model: Model,
        labels: Sequence[str],
        known: Sequence[str],
        *,
        seed: int,
        decoder: Mapping[str, Any] | None = None,
    ) -> Model:
        """The trained model where it knows classes of the data; else its backbone with a new decoder."""
        from torch import Generator

        from tesela.models.segmenter.segmenter import Segmenter

        is_segmenter, places = isinstance(model, Segmenter), known_places(labels, known)
        if is_segmenter and not decoder and any(place is not None for place in places):
            if list(labels) != list(known):
                model.take_classes(places, Generator().manual_seed(seed))
            return model
        settings = decoder or (model.options["decoder"] if is_segmenter else None)
        found = Segmenter(model.backbone, num_classes=len(labels), decoder=settings)
        found.initialise_head(Generator().manual_seed(seed))
        return found

    def rows(self, batch: Batch, outputs: Tensor | list[Tensor]) -> Rows:
        """Mean IoU (B,) of each image, and small masks (B, h, w) of truth and prediction."""
        view = batch.targets.shape[1:]
        scale = min(1.0, KEPT_SIDE / max(view))
        size = max(1, round(view[0] * scale)), max(1, round(view[1] * scale))
        own = isinstance(outputs, list)  # each at its image's own size, as its mask is
        truth = [mask.cpu().numpy() for mask in (batch.full if own else batch.targets)]
        predicted = [logits.max(0).indices.cpu().numpy().astype(np.uint8) for logits in outputs]
        ious = [iou_of(p, t, len(logits)) for p, t, logits in zip(predicted, truth, outputs, strict=True)]
        return {
            "iou": np.array(ious, np.float32),
            "truth": np.stack([resize_mask(mask, size) for mask in truth]),
            "predicted": np.stack([resize_mask(mask, size) for mask in predicted]),
        }

    def pictures(self, rows: Rows, sample: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The images with the lowest mean IoU."""
        del sample
        iou = np.nan_to_num(np.asarray(rows["iou"]), nan=1.0)
        return {"worst": np.argsort(iou, kind="stable")[:WORST].astype(np.int64)}

    def lead(self, scores: Mapping[str, Any]) -> str:
        """Mean IoU and right pixels."""
        from tesela.tasks.segmentation.sections import mask_lead  # charts, which no prediction needs

        return mask_lead(scores)

    def tiles(self, scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
        """Mean IoU, right pixels, Dice, boundaries, size."""
        from tesela.tasks.segmentation.sections import mask_tiles

        return mask_tiles(scores)

    def sections(self, material: Material) -> list[Section]:
        """Classes, overlays, worst images, explanations."""
        from tesela.tasks.segmentation.sections import mask_sections

        return mask_sections(material)

    def tables(self, scores: Mapping[str, Any], **options: Any) -> list[RenderableType]:
        """The scores that matter, and each class with the worst first."""
        del options
        from tesela.tasks.segmentation.tables import mask_score_tables

        return mask_score_tables(scores)


def colours_of(info: BundleInfo) -> tuple[tuple[int, int, int], ...]:
    """Colours of a bundle's classes; usual ones where it has none."""
    from tesela.data.masks.classes_file import parse_colour

    if len(info.colors) == len(info.labels):
        return tuple(parse_colour(text) for text in info.colors)
    return palette(min(len(info.labels), IGNORE))
