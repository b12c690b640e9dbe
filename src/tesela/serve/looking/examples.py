"""Example images of a served model: test images of its run.

The evaluation kept them for the report. They lie in the run's folder and not in the bundle, so that a bundle
that is handed on holds nobody's images.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tesela.imaging.spec import ImageSpec
from tesela.runs.folder import Run

#: Name of the images in predictions.npz, as the evaluation writes them.
SHOWN = "shown_images"


def example_images(bundle: Path | None, spec: ImageSpec) -> NDArray[np.uint8]:
    """Images (n, h, w, C), uint8, of the run that a bundle lies in; none where nothing fitting was kept."""
    none = np.zeros((0, *spec.size, spec.channels), np.uint8)
    if bundle is None:
        return none
    try:
        with (
            Run(bundle.parent).predictions.open("rb") as stream,
            np.load(stream, allow_pickle=False) as kept,
        ):
            images = kept[SHOWN]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # no run, or another program's file
        return none
    return images if images.dtype == np.uint8 and images.shape[1:] == none.shape[1:] else none
