"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 (UCI, CC BY 4.0).

They are inside the package, so nothing is downloaded.

Their 17 grey levels are spread over 0..255. The size stays 8 x 8. Needs the extra ``demo``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tesela.core.errors import MissingExtraError
from tesela.data.source import ArrayItems, Source


class DigitItems(ArrayItems):
    """All digits; workers load them again."""

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise MissingExtraError("the data set digits", "demo") from None
        digits = load_digits()
        levels = np.floor(digits.images * (255 / 16) + 0.5).astype(np.uint8)
        super().__init__(levels[..., None], digits.target, prefix="digits")

    def __reduce__(self) -> tuple[Any, ...]:
        return DigitItems, ()


def find_digits(text: str | Path) -> Source | None:
    """The digits, if ``text`` is ``digits``."""
    return open_digits() if str(text) == "digits" else None


def open_digits() -> Source:
    """The digits as a source with one split."""
    return Source(
        name="digits", kind="digits", labels=tuple("0123456789"), splits={"train": DigitItems()}, channels=1
    )
