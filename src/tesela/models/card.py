"""Model cards: README.md of a bundle or an export, with front matter for model hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Contents of a model card.

    Attributes:
        model: name of the architecture.
        noun: kind of model, for people.
        pipeline_tag: kind of model, as model hubs call it.
        parameters: number of weights.
        data: name of the training data.
        images: number of images by split.
        labels: class names.
        size: (height, width, channels) that the model sees.
        scores: by their names for people; empty without a test split.
        split: what the scores were measured on.
        steps: of training.
        recipe: name of the recipe, or None.
        origin: what the weights started from, or None.
        license: of the weights; unknown where nobody said.
    """

    model: str
    noun: str
    pipeline_tag: str
    parameters: int
    data: str
    images: Mapping[str, int]
    labels: Sequence[str]
    size: tuple[int, int, int]
    scores: Mapping[str, Any]
    split: str
    steps: int
    recipe: str | None = None
    origin: str | None = None
    license: str = "unknown"

    def text(self) -> str:
        """The card as Markdown."""
        import yaml

        front = {
            "library_name": "tesela",
            "pipeline_tag": self.pipeline_tag,
            "tags": ["vision-transformer", self.pipeline_tag],
        }
        if self.license != "unknown":
            front["license"] = self.license
        parts = (self._what(), self._score(), self._use(), self._data(), self._limits())
        return (
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {self.model} on {self.data}\n\n"
            + "\n\n".join(parts)
            + "\n"
        )

    def _what(self) -> str:
        height, width, channels = self.size
        begin = f"fine-tuned from {self.origin}" if self.origin else "trained from scratch"
        recipe = f" with the recipe `{self.recipe}`" if self.recipe else ""
        kind = "grey" if channels == 1 else "colour"
        return (
            f"{article(self.noun)}, {begin}{recipe}: {self.parameters:,} parameters, {self.steps:,} steps, "
            f"{kind} images of {height} x {width} pixels, {len(self.labels)} classes."
        )

    def _score(self) -> str:
        rows = [
            f"| {label} | {value:.4f} |"
            for label, value in self.scores.items()
            if isinstance(value, (int, float))
        ]
        if not rows:
            return "## Score\n\nIt was not tested: the data has no test split."
        count = self.images.get(self.split, 0)
        head = (
            f"On the {count:,} images of the {self.split} split, which were not trained on:\n\n| | "
            "|\n|---|---|\n"
        )
        return f"## Score\n\n{head}" + "\n".join(rows)

    def _use(self) -> str:
        return (
            "## Use\n\n```bash\ntesela predict PATH_OF_THIS_FOLDER photo.jpg\n```\n\n"
            "```python\nimport tesela as ts\n\n"
            'model = ts.load("PATH_OF_THIS_FOLDER")  # an nn.Module: images in, logits out\n```\n\n'
            "`config.json` holds the class names, how images are prepared and a digest of each tensor; "
            "`model.safetensors` the weights."
        )

    def _data(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        return f"## Data\n\n{self.data}: {counts} images. Classes: {named(self.labels, most=50)}."

    def _limits(self) -> str:
        licence = (
            self.license
            if self.license != "unknown"
            else "not stated; the licence of the training data may bind"
        )
        return (
            "## Limits and licence\n\nThe model knows the classes above and answers with one of them for "
            "any image, "
            "also for one that shows none of them. The scores hold for images like those it was tested "
            "on.\n\n"
            f"Licence of the weights: {licence}."
        )


def article(noun: str) -> str:
    """``image classifier`` as ``An image classifier``."""
    return f"An {noun}" if noun[0].lower() in "aeiou" else f"A {noun}"


def plain_card(
    info: BundleInfo,
    *parts: str,
    library: str = "tesela",
    title: str | None = None,
    pipeline_tag: str = "image-classification",
) -> str:
    """A card of some paragraphs.

    Args:
        info: what the bundle says of itself.
        *parts: the paragraphs.
        library: the one that loads it.
        title: the headline; the model's name if None.
        pipeline_tag: kind of model, as model hubs call it.
    """
    front = f"license: {info.license}\nlibrary_name: {library}\npipeline_tag: {pipeline_tag}"
    text = "\n\n".join(part.rstrip("\n") for part in (*parts, f"Licence: {info.license}"))
    return f"---\n{front}\n---\n# {title or info.name}\n\n{text}\n"


def named(labels: Sequence[str], *, most: int = 20) -> str:
    """The first labels, and how many there are if not all are named."""
    rest = f", ... ({len(labels)} in all)" if len(labels) > most else ""
    return ", ".join(labels[:most]) + rest
