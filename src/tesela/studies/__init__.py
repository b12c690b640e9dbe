"""Studies: grids of runs that answer a question.

A kind of study says which cells a grid has, and reads the answer off their results. Each cell is an ordinary
run below ``OUT/cells``.
"""

from __future__ import annotations

from tesela.core.registry import register

for _module, _class, _name, _summary in (
    (
        "data_size",
        "DataSizeStudy",
        "data-size",
        "accuracy against the number of labels, and what more of them would bring",
    ),
    (
        "compute",
        "ComputeStudy",
        "compute",
        "accuracy against training compute and size, and what more would bring",
    ),
    (
        "positions",
        "PositionsStudy",
        "positions",
        "kinds of positions, and where they are added (ViT paper, appendix D.4)",
    ),
    ("claims", "ClaimsStudy", "claims", "what the articles claim, each claim held against measured runs"),
    (
        "few_labels",
        "FewLabelsStudy",
        "few-labels",
        "pre-training and a few labels, beside scratch and a CNN in equal time",
    ),
):
    register("study", _name, target=f"tesela.studies.kinds.{_module}:{_class}", summary=_summary)
