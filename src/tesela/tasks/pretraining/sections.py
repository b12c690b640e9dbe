"""Pre-training's part of the report: collapse alarm, pictures over the epochs, attention.

A section without its material is empty and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tesela.core.format import percent
from tesela.page.charts.figure import charts_row
from tesela.page.charts.line import Series, line_chart
from tesela.page.document import data_uri, render
from tesela.page.section import Section
from tesela.runs.folder import Run
from tesela.tasks.material import Material

COLLAPSE = (
    "The embeddings have collapsed: images can hardly be told apart by them. Lower the learning rate, raise "
    "the batch size or, with dino, the teacher's momentum or temperature."
)


def pretraining_lead(scores: Mapping[str, Any]) -> str:
    """One sentence on what was reached."""
    rank = f"the effective rank of the embeddings is {scores['embedding_rank']:.1f}"
    if scores.get("probe_accuracy") is None:
        return f"Learned without labels; {rank} of at most {scores['embedding_width']}."
    share = percent(scores["probe_accuracy"], 1)
    return f"A linear probe tells the class of {share} of {scores['probed']:,} images; {rank}."


def pretraining_tiles(scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The numbers that matter: name, value and note."""
    if scores.get("probe_accuracy") is not None:
        note = f"cross-validated on {scores['probed']:,} images of {scores['classes']} classes"
        yield "Linear probe", percent(scores["probe_accuracy"], 1), note
        yield "Nearest neighbours", percent(scores["knn_accuracy"], 1), "the same images, 20 neighbours"
    alarm = "collapsed" if scores["collapsed"] else f"of at most {scores['embedding_width']}"
    yield "Effective rank", f"{scores['embedding_rank']:.1f}", alarm
    yield "Parameters", f"{scores['parameters']:,}", "decoder and teacher left out"


def pretraining_sections(material: Material) -> list[Section]:
    """The sections, in the order of the report."""
    return [
        Section(title="Collapse", body=COLLAPSE if material.scores.get("collapsed") else ""),
        Section(
            title="Rank of the embeddings",
            note="1 where all images have the same embedding; it should not fall towards it.",
            body=_ranks(material),
        ),
        Section(
            title="Pictures over the epochs",
            note="The same validation images after each epoch: the image, what the network saw of it, and "
            "what it made of that; or, where nothing is hidden, where it looked.",
            body=_animation(material),
        ),
        Section(
            title="Attention",
            note="Bright: the patches that the embedding could see most of, by attention rollout.",
            body=_attention(material),
        ),
    ]


def _ranks(material: Material) -> str:
    rows = material.of_kind("epoch")
    points = [
        (float(place), row["val_embedding_rank"])
        for place, row in enumerate(rows, 1)
        if isinstance(row.get("val_embedding_rank"), float)
    ]
    if not points:
        return ""
    series = Series(name="validation", points=points, tone=2)
    return charts_row(line_chart([series], title="Effective rank", x_label="epoch", whole=True, low=0))


def _animation(material: Material) -> str:
    file = Run(material.path).animation
    if not file.is_file():
        return ""
    return render("tesela.tasks.pretraining/animation.html.j2", gif=data_uri(file.read_bytes(), "gif"))


def _attention(material: Material) -> str:
    names = material.arrays.get("shown_names", ())
    pictures = [
        {"png": png, "name": str(name)} for png, name in zip(material.explanations, names, strict=False)
    ]
    return render("tesela.tasks.pretraining/attention.html.j2", pictures=pictures) if pictures else ""
